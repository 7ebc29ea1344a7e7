"""What a compiled program sends between devices, read from its text: loops counted with their turns.

A device in a group of g sends, in a ring, of a result of s bytes

    all-gather s (g−1)/g · reduce-scatter s (g−1) · all-reduce 2 s (g−1)/g · all-to-all s (g−1)/g · permute s    (1)

The compiler splits one collective into a start, pieces fused with other work, and an end: they share its channel and
count once. Pieces may lie in a loop that the start and the end stand around, so it runs as often as what runs least.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

KINDS = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute")
_BYTES = {"pred": 1, "bf16": 2, "c64": 8, "c128": 16}
_HEAD = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\) -> .* \{$")
_LINE = re.compile(r"^\s+(?:ROOT )?%?([\w.-]+) = (.*?) ([a-z][\w-]*)\((.*)$")
_SHAPE = re.compile(r"\b([a-z]\w*?)\[([\d,]*)\]")


class Instruction(NamedTuple):
    """One line: its name, the text of its shape, what it does, and the rest of the line from its operands on."""

    name: str
    shape: str
    operation: str
    rest: str
    root: bool


class Traffic(NamedTuple):
    """How often a kind of collective runs and what one device sends by it, in bytes, in one call of the program."""

    times: int
    bytes: int


def parse(text: str) -> tuple[str, dict[str, list[Instruction]]]:
    """The entry's name, and every computation's instructions."""
    computations: dict[str, list[Instruction]] = {}
    entry, current = "", []
    for line in text.splitlines():
        head = _HEAD.match(line)
        if head:
            current = computations.setdefault(head[2], [])
            entry = head[2] if head[1] else entry
            continue
        match = _LINE.match(line)
        if match:
            name, shape, operation, rest = match.groups()
            current.append(Instruction(name, shape, operation, rest, root=line.lstrip().startswith("ROOT ")))
    return entry, computations


def _sizes(shape: str) -> list[int]:
    """Bytes of each array in a shape's text."""
    sizes = []
    for kind, extents in _SHAPE.findall(shape):
        bits = re.search(r"\d+", kind)
        width = _BYTES.get(kind) or (max(int(bits[0]) // 8, 1) if bits else 0)
        sizes.append(width * math.prod(int(extent) for extent in extents.split(",") if extent))
    return sizes


def _group(rest: str, devices: int) -> int:
    """Devices that take part in one collective together."""
    listed = re.search(r"replica_groups=\{\{([\d,]*)\}", rest)
    if listed:
        return len(listed[1].split(","))
    counted = re.search(r"replica_groups=\[\d+,(\d+)\]", rest)
    if counted:
        return int(counted[1])
    named = re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", rest)
    if named:
        extents = dict(re.findall(r"'(\w+)'=(\d+)", named[1]))
        return math.prod(int(extents[axis]) for axis in re.findall(r"'(\w+)'", named[2]))
    return devices


def _called(rest: str) -> dict[str, list[str]]:
    """Computations an instruction runs, by the word that names them."""
    called = {word: [name] for word, name in re.findall(r"(body|condition|calls|to_apply)=%?([\w.-]+)", rest)}
    branches = re.search(r"branch_computations=\{([^}]*)\}", rest)
    if branches:
        called["branches"] = re.findall(r"[\w.-]+", branches[1].replace("%", " "))
    return called


def _operands(rest: str) -> list[str]:
    return re.findall(r"%([\w.-]+)", rest.split(")", 1)[0])


def turns(instruction: Instruction, computations: dict[str, list[Instruction]]) -> int:
    """How often a while loop's body runs: from the compiler's note, or from the bound of its counter and what a turn
    adds to it; 1 where neither can be read."""
    noted = re.search(r'known_trip_count[^}]*?"?n"?:"?(\d+)', instruction.rest)
    if noted:
        return int(noted[1])
    called = _called(instruction.rest)
    condition = {line.name: line for line in computations.get(called.get("condition", [""])[0], [])}
    body = computations.get(called.get("body", [""])[0], [])
    constants = {
        line.name: int(number[1])
        for line in (*condition.values(), *body)
        if line.operation == "constant" and (number := re.match(r"(-?\d+)\)", line.rest))
    }
    compare = next((line for line in condition.values() if line.root and line.operation == "compare"), None)
    bounds = [constants[name] for name in _operands(compare.rest) if name in constants] if compare else []
    if not bounds:
        bounds = [value for name, value in constants.items() if name in condition]
    if not bounds:
        return 1
    place = _counter(compare, condition)
    root = next((line for line in body if line.root), None)
    stride = 1
    if place is not None and root is not None and place < len(_operands(root.rest)):
        stride = _added(_operands(root.rest)[place], {line.name: line for line in body}, constants) or 1
    return max(math.ceil(max(bounds) / stride), 1)


def _counter(compare: Instruction | None, condition: dict[str, Instruction]) -> int | None:
    """Which part of the loop's tuple is its counter."""
    for name in _operands(compare.rest) if compare else ():
        index = re.search(r"index=(\d+)", condition[name].rest) if name in condition else None
        if index and condition[name].operation == "get-tuple-element":
            return int(index[1])
    return None


def _added(name: str, body: dict[str, Instruction], constants: dict[str, int]) -> int:
    """What a chain of additions adds to the counter it begins from."""
    line, total = body.get(name), 0
    while line is not None and line.operation in ("add", "copy", "bitcast"):
        operands = _operands(line.rest)
        total += sum(constants.get(operand, 0) for operand in operands) if line.operation == "add" else 0
        line = next((body[operand] for operand in operands if operand not in constants and operand in body), None)
    return total


def collectives(text: str, devices: int) -> dict[str, Traffic]:
    """Traffic by kind, of one device in one call of the compiled program `text` (HLO), by equation (1)."""
    entry, computations = parse(text)
    once: dict[tuple[str, str], tuple[int, int]] = {}

    def visit(name: str, times: int) -> Iterator[tuple[str, int, Instruction]]:
        for line in computations.get(name, ()):
            kind = line.operation.removesuffix("-start")
            if kind in KINDS:
                yield kind, times, line
            inner = times * (turns(line, computations) if line.operation == "while" else 1)
            for word, names in _called(line.rest).items():
                if word != "to_apply" or line.operation == "call":
                    for each in names:
                        yield from visit(each, inner)

    for kind, times, line in visit(entry, 1):
        channel = re.search(r"channel_id=(\d+)", line.rest)
        key = (kind, channel[1] if channel else line.name)
        size = _sent(kind, line, _group(line.rest, devices))
        before = once.get(key, (times, 0))
        once[key] = (min(times, before[0]), max(size, before[1]))
    total: dict[str, Traffic] = {}
    for (kind, _), (times, size) in once.items():
        already, before_bytes = total.get(kind, Traffic(0, 0))
        total[kind] = Traffic(already + times, before_bytes + times * size)
    return {kind: total[kind] for kind in KINDS if kind in total}


def _sent(kind: str, line: Instruction, group: int) -> int:
    """Equation (1)."""
    sizes = _sizes(line.shape)
    started = line.operation.endswith("-start") and kind != "all-reduce"  # (operand, result, …)
    size = max(sizes, default=0) if started else sum(sizes)
    if kind == "collective-permute":
        return size
    if kind == "reduce-scatter":
        size = min(sizes, default=0) if started else size
        return size * (group - 1)
    return (2 if kind == "all-reduce" else 1) * size * (group - 1) // group
