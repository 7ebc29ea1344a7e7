"""PyTorch's .pth files without PyTorch and without running what is in them.

Such a file is a zip archive: `<name>/data.pkl`, a pickle that says how tensors are made of storages, and
`<name>/data/<key>`, each storage's bytes. The pickle may name any function. Here its names are looked up in a short
list that only makes arrays, and everything else is refused before anything is called.
"""

from __future__ import annotations

import collections
import io
import math
import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import ml_dtypes
import numpy as np

STORAGES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}


def _tensor(storage: np.ndarray, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> np.ndarray:
    if not isinstance(storage, np.ndarray) or len(size) != len(stride) or offset < 0:
        raise ValueError("one of its tensors has no storage")
    if any(length < 0 for length in size) or any(step < 0 for step in stride):
        raise ValueError("one of its tensors has a negative size")
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if math.prod(size) and last >= storage.size:
        raise ValueError("one of its tensors reaches beyond its storage")
    steps = tuple(step * storage.itemsize for step in stride)
    return np.ascontiguousarray(np.lib.stride_tricks.as_strided(storage[offset:], size, steps)).reshape(size)


class _Unpickler(pickle.Unpickler):
    """Finds the names that make tensors, and no other."""

    allowed = {
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): _tensor,
        ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
        ("torch", "Size"): tuple,
        **{("torch", name): np.dtype(dtype) for name, dtype in STORAGES.items()},
    }

    def __init__(self, archive: zipfile.ZipFile, root: str, path: Path) -> None:
        super().__init__(io.BytesIO(archive.read(f"{root}/data.pkl")))
        self._archive, self._root, self._path = archive, root, path
        self._storages: dict[str, np.ndarray] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.allowed:
            _refuse(self._path, f"it asks for {module}.{name}, which is not needed to make a tensor")
        return self.allowed[module, name]

    def persistent_load(self, identity: Any) -> np.ndarray:
        kind, dtype, key, _, count = identity
        if kind != "storage" or not isinstance(dtype, np.dtype) or not str(key).isalnum():
            _refuse(self._path, "it keeps something that is not a storage")
        if key not in self._storages:
            self._storages[key] = np.frombuffer(self._archive.read(f"{self._root}/data/{key}"), dtype)
        if self._storages[key].size < count:
            _refuse(self._path, f"storage {key} is shorter than it says")
        return self._storages[key]


def _refuse(path: Path, why: str) -> NoReturn:
    raise ValueError(f"{path} is not opened: {why}")


def read_pickle(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The tensors of a .pth file by name; a level of nesting (a "state_dict", a "model") is opened.

    Raises:
      ValueError: the file is not one of tensors alone, is damaged, or is in the format of before 2020.
      FileNotFoundError: it does not exist.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"weights file {path} does not exist")
    if not zipfile.is_zipfile(path):
        _refuse(path, "it is not a torch.save archive of version 1.6 or later, or it is truncated")
    with zipfile.ZipFile(path) as archive:
        roots = [name.removesuffix("/data.pkl") for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(roots) != 1:
            _refuse(path, "it holds no data.pkl, or several")
        order = f"{roots[0]}/byteorder"
        if order in archive.namelist() and archive.read(order) != b"little":
            _refuse(path, "its numbers are big-endian")
        try:
            content = _Unpickler(archive, roots[0], path).load()
        except ValueError as error:
            if str(path) in str(error):
                raise
            _refuse(path, str(error))
        except (pickle.UnpicklingError, EOFError, KeyError, IndexError, TypeError, AttributeError) as error:
            _refuse(path, f"its pickle is damaged or unusual ({type(error).__name__}: {error})")
    for level in ("state_dict", "model", "teacher"):
        if isinstance(content, Mapping) and isinstance(content.get(level), Mapping):
            content = content[level]
    if not isinstance(content, Mapping):
        _refuse(path, f"it holds a {type(content).__name__}, not tensors by name")
    tensors = {name: value for name, value in content.items() if isinstance(value, np.ndarray)}
    others = [str(name) for name in content if name not in tensors]
    if others or not tensors:
        _refuse(path, f"beside tensors it holds {', '.join(others[:8]) or 'nothing'}")
    return tensors
