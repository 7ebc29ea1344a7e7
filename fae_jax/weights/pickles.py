"""PyTorch's .pth files without PyTorch and without running what is in them.

Such a file is a zip archive: `<name>/data.pkl`, a pickle that says how tensors are made of storages, and
`<name>/data/<key>`, each storage's bytes. Before version 1.6 it was five pickles one after the other (a number, a
version, the machine, what `data.pkl` holds, the storages' keys), then each storage's length and bytes. Python's own
unpickler would call what a pickle names, and change what it was given. Here the few opcodes that such files need are
carried out one by one on plain lists, dicts, tuples, strings and numbers; a name stays a name until a tensor is made
of it, and everything else is refused.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import pickletools
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, NoReturn

import ml_dtypes
import numpy as np

STORAGES = {
    "torch.DoubleStorage": np.float64,
    "torch.FloatStorage": np.float32,
    "torch.HalfStorage": np.float16,
    "torch.BFloat16Storage": ml_dtypes.bfloat16,
    "torch.LongStorage": np.int64,
    "torch.IntStorage": np.int32,
    "torch.ShortStorage": np.int16,
    "torch.CharStorage": np.int8,
    "torch.ByteStorage": np.uint8,
    "torch.BoolStorage": np.bool_,
}
TENSOR, PARAMETER, ORDERED_DICT, SIZE = (
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
    "collections.OrderedDict",
    "torch.Size",
)
ARGUMENTS = "argparse.Namespace"  # a command line, as some training scripts keep it; left empty
NAMES = {ARGUMENTS, TENSOR, PARAMETER, ORDERED_DICT, SIZE, *STORAGES}
MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # the first of the five pickles
VERSION = 1001
VALUES = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "NONE": None,
    "NEWTRUE": True,
    "NEWFALSE": False,
}
NUMBERS_AND_TEXT = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINSTRING", "SHORT_BINSTRING"),
}


class _Name(str):
    """A name that the pickle asks for, apart from a text that it holds."""


_MARK = _Name("mark")


@dataclasses.dataclass(frozen=True, eq=False)
class _Stored:
    """A storage, or a tensor in it, as the pickle describes it."""

    dtype: np.dtype
    key: str
    count: int
    offset: int = 0
    size: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()


def _storage(identity: Any) -> _Stored:
    kind, dtype, key, _, count, *view = identity
    if any(part is not None for part in view):
        raise ValueError(f"storage {key} is a part of another")
    if kind != "storage" or dtype not in STORAGES or not isinstance(dtype, _Name) or not str(key).isalnum():
        raise ValueError("it keeps something that is not a storage")
    if type(count) is not int or count < 0:
        raise ValueError(f"storage {key} has no size")
    return _Stored(np.dtype(STORAGES[dtype]), str(key), count)


def _called(name: Any, arguments: tuple[Any, ...]) -> Any:
    """What a function that the pickle names makes of its arguments."""
    if not isinstance(name, _Name):
        raise ValueError("it calls what is not a function")
    if name == ORDERED_DICT:
        return dict(*arguments)
    if name == SIZE:
        return tuple(*arguments)
    if name == PARAMETER:
        return arguments[0]
    if name != TENSOR:
        raise ValueError(f"it calls {name}")
    storage, offset, size, stride = arguments[:4]
    whole = [*size, *stride, offset]
    if not isinstance(storage, _Stored) or len(size) != len(stride):
        raise ValueError("one of its tensors has no storage")
    if any(type(number) is not int or number < 0 for number in whole):
        raise ValueError("one of its tensors has a size that is negative or no whole number")
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if math.prod(size) and (last >= storage.count or math.prod(size) > storage.count):
        raise ValueError("one of its tensors reaches beyond its storage")
    return dataclasses.replace(storage, offset=offset, size=tuple(size), stride=tuple(stride))


def _carry_out(program: bytes | IO[bytes], storages: dict[str, _Stored] | None = None) -> Any:
    """The value of a pickle, made of plain values and `_Stored`.

    Args:
      program: of an open file the next pickle is read, and no further.
      storages: takes those that it names, by key.

    Raises:
      ValueError: it needs an opcode or a name that tensors do not.
    """
    stack: list[Any] = []
    memo: dict[Any, Any] = {}

    def above_mark() -> list[Any]:
        place = max(index for index, value in enumerate(stack) if value is _MARK)
        values = stack[place + 1 :]
        del stack[place:]
        return values

    def into(target: Any, pairs: list[Any]) -> None:
        if type(target) is not dict:
            raise ValueError("it sets an item of what is not a dict")
        target.update(zip(pairs[::2], pairs[1::2], strict=True))

    for opcode, argument, _ in pickletools.genops(program):
        name = opcode.name
        if name in VALUES:
            made = VALUES[name]
            stack.append(made() if callable(made) else made)
        elif name in NUMBERS_AND_TEXT:
            stack.append(argument)
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            parts = argument.split(" ") if argument else [stack.pop(-2), stack.pop()]
            asked = ".".join(map(str, parts))
            if asked not in NAMES:
                raise ValueError(f"it asks for {asked[:100]}, which is not needed to make a tensor")
            stack.append(_Name(asked))
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "TUPLE":
            stack.append(tuple(above_mark()))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            stack[-count:] = [tuple(stack[-count:])]
        elif name in ("SETITEM", "SETITEMS"):
            pairs = above_mark() if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
            into(stack[-1], pairs)
        elif name in ("APPEND", "APPENDS"):
            items = above_mark() if name == "APPENDS" else [stack.pop()]
            if type(stack[-1]) is not list:
                raise ValueError("it appends to what is not a list")
            stack[-1].extend(items)
        elif name == "BINPERSID":
            stack.append(stored := _storage(stack.pop()))
            if storages is not None:
                storages[stored.key] = stored
        elif name == "REDUCE":
            arguments = stack.pop()
            stack.append(_called(stack.pop(), tuple(arguments)))
        elif name == "NEWOBJ":
            arguments, kind = stack.pop(), stack.pop()
            if kind != ARGUMENTS or not isinstance(kind, _Name) or arguments:
                raise ValueError("it makes an object that is not needed to make a tensor")
            stack.append({})
        elif name == "BUILD":  # a module's versions, kept as an attribute of its dict of tensors
            stack.pop()
            if type(stack[-1]) is not dict:
                raise ValueError("it changes something that is not a dict")
        elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memo[len(memo) if name == "MEMOIZE" else argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "STOP":
            return stack.pop()
        elif name not in ("PROTO", "FRAME"):
            raise ValueError(f"its pickle has the opcode {name}, which is not needed to make a tensor")
    raise ValueError("its pickle has no end")


class _Archive:
    """The members of a .pth file. They are stored as they are, so none is longer than the file."""

    def __init__(self, archive: zipfile.ZipFile):
        self._archive = archive
        roots = [name.removesuffix("/data.pkl") for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise ValueError("it holds no data.pkl, or several")
        self._root = roots[0]
        if f"{self._root}/byteorder" in archive.namelist() and self._read("byteorder") != b"little":
            raise ValueError("its numbers are big-endian")
        self.content = _carry_out(self._read("data.pkl"))

    def _read(self, name: str) -> bytes:
        about = self._archive.getinfo(f"{self._root}/{name}")
        if about.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"its member {name} is compressed, which torch.save does not do")
        return self._archive.read(about)

    def storage(self, key: str) -> bytes:
        return self._read(f"data/{key}")


class _Sequence:
    """The same of a file that was written before version 1.6."""

    def __init__(self, file: IO[bytes]):
        storages: dict[str, _Stored] = {}
        _, version, machine = (_carry_out(file) for _ in range(3))
        if version != VERSION or not isinstance(machine, dict) or machine.get("little_endian") is not True:
            raise ValueError("its numbers are big-endian, or it is of an unknown version")
        self.content = _carry_out(file, storages)
        self._storages = {}
        for key in _carry_out(file):
            count = int.from_bytes(file.read(8), "little")
            if key not in storages or count != storages[key].count:
                raise ValueError(f"storage {str(key)[:100]} is not as long as it should be")
            size = count * storages[key].dtype.itemsize
            self._storages[key] = file.read(min(size, os.fstat(file.fileno()).st_size))

    def storage(self, key: str) -> bytes:
        return self._storages[key]


def _tensor(stored: _Stored, data: bytes) -> np.ndarray:
    if len(data) < stored.count * stored.dtype.itemsize:
        raise ValueError(f"storage {stored.key} is shorter than it says")
    storage = np.frombuffer(data, stored.dtype, stored.count)
    steps = tuple(step * storage.itemsize for step in stored.stride)
    view = np.lib.stride_tricks.as_strided(storage[stored.offset :], stored.size, steps, writeable=False)
    return np.array(view, order="C").reshape(stored.size)


def _refuse(path: Path, why: str) -> NoReturn:
    raise ValueError(f"{path} is not opened: {why}")


def read_pickle(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The tensors of a .pth file by name; a level of nesting (an "ema", a "state_dict", a "model") is opened.

    Raises:
      ValueError: the file is not one of tensors alone, or is damaged.
      FileNotFoundError: it does not exist.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"weights file {path} does not exist")
    with open(path, "rb") as file:
        begins = file.read(len(MAGIC)) == MAGIC
    if not begins and not zipfile.is_zipfile(path):
        _refuse(path, "it is not a torch.save archive, or it is truncated")
    try:
        with open(path, "rb") as file:
            members = _Sequence(file) if begins else _Archive(zipfile.ZipFile(file))
            content = members.content
            for level in ("ema", "state_dict", "model", "teacher"):
                if isinstance(content, Mapping) and isinstance(content.get(level), Mapping):
                    content = content[level]
            if not isinstance(content, Mapping):
                raise ValueError(f"it holds a {type(content).__name__}, not tensors by name")
            named = {name: value for name, value in content.items() if isinstance(name, str)}
            stored = {name: value for name, value in named.items() if isinstance(value, _Stored)}
            data = functools.cache(members.storage)
            tensors = {name: _tensor(value, data(value.key)) for name, value in stored.items()}
    except ValueError as error:
        _refuse(path, str(error))
    except Exception as error:  # zipfile and pickletools raise almost anything on damaged files
        _refuse(path, f"its pickle is damaged or unusual ({type(error).__name__}: {str(error)[:100]})")
    others = [str(name)[:100] for name in content if name not in tensors]
    if others or not tensors:
        _refuse(path, f"beside tensors it holds {', '.join(others[:8]) or 'nothing'}")
    return tensors
