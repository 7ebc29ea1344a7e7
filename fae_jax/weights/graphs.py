"""Parameters of a TensorFlow 1 graph (.pb) without TensorFlow: of its message only the constants are looked at.

A message is a sequence of (number · 8 + kind, value); kind 0 is a number of 7 bits a byte, 2 a length and bytes,
1 and 5 are 8 and 4 bytes. Of GraphDef: node = 1; of a node: name = 1, op = 2, attr = 5 {key = 1, value = 2
{tensor = 8}}; of a tensor: dtype = 1 (float32: 1), shape = 2 {dim = 2 {size = 1}}, content = 4.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

SUFFIX = ".pb"


def _number(data: memoryview, place: int) -> tuple[int, int]:
    """(the number at `place`, where it ends)."""
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
        if shift > 63:
            raise ValueError("a number has no end")


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(number, value) of a message."""
    place = 0
    while place < len(data):
        key, place = _number(data, place)
        if key & 7 == 0:
            value, place = _number(data, place)
            yield key >> 3, value
            continue
        if key & 7 not in (1, 2, 5):
            raise ValueError("a field is of an unknown kind")
        size, place = _number(data, place) if key & 7 == 2 else (8 if key & 7 == 1 else 4, place)
        if place + size > len(data):
            raise ValueError("it ends inside a field")
        yield key >> 3, data[place : place + size]
        place += size


def _of(data: memoryview, number: int) -> list[memoryview]:
    """The messages and texts of a field."""
    return [value for key, value in _fields(data) if key == number and isinstance(value, memoryview)]


def _whole(data: memoryview, number: int) -> int:
    """The whole number of a field; 0 where it is left out."""
    return next((value for key, value in _fields(data) if key == number and isinstance(value, int)), 0)


def _array(tensor: memoryview) -> np.ndarray | None:
    """The tensor, where it is of float32 and has dimensions."""
    shape = [_whole(size, 1) for shape in _of(tensor, 2) for size in _of(shape, 2)]
    if _whole(tensor, 1) != 1 or not shape:
        return None
    return np.frombuffer(b"".join(_of(tensor, 4)), "<f4").reshape(shape)


def read_graph(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The float32 constants of a frozen graph that have dimensions, by name.

    Raises:
      FileNotFoundError: it does not exist.
      ValueError: it is damaged, or no graph.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"weights file {path} does not exist")
    arrays = {}
    try:
        for node in _of(memoryview(path.read_bytes()), 1):
            if [bytes(op) for op in _of(node, 2)] != [b"Const"]:
                continue
            for attribute in _of(node, 5):
                values = [tensor for value in _of(attribute, 2) for tensor in _of(value, 8)]
                array = _array(values[0]) if values else None
                if array is not None:
                    arrays[str(_of(node, 1)[0], "utf-8")] = array
    except (ValueError, IndexError) as error:
        raise ValueError(f"{path} is damaged, truncated or no frozen graph of TensorFlow ({error})") from error
    if not arrays:
        raise ValueError(f"{path} holds no parameters, or is no frozen graph of TensorFlow")
    return arrays
