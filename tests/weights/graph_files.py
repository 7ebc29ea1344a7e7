"""TensorFlow's frozen graphs, written without TensorFlow."""

import numpy as np


def _number(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def message(*fields: tuple[int, int | bytes]) -> bytes:
    """A message of (number, value)."""
    parts = []
    for number, value in fields:
        whole = isinstance(value, int)
        parts += [_number(number << 3 | (0 if whole else 2)), _number(value if whole else len(value))]
        parts += [] if whole else [value]
    return b"".join(parts)


def constant(name: str, array: np.ndarray) -> bytes:
    """A node that holds an array."""
    array = np.asarray(array)
    kind = {"float32": 1, "int32": 3}[array.dtype.name]
    shape = message(*((2, message((1, size))) for size in array.shape))
    tensor = message((1, kind), (2, shape), (4, array.tobytes()))
    attributes = {b"dtype": message((6, kind)), b"value": message((8, tensor))}
    return message((1, name.encode()), (2, b"Const"), *((5, message((1, k), (2, v))) for k, v in attributes.items()))


def graph(*nodes: bytes | tuple[int, int]) -> bytes:
    """A graph of nodes, and of other fields."""
    return message(*((1, node) if isinstance(node, bytes) else node for node in nodes))
