"""safetensors files, read a tensor at a time.

A file is   8 bytes: length N of the header, little endian · N bytes: JSON {name: {dtype, shape, data_offsets}} ·
data.

Several files with an index (`model.safetensors.index.json`: {"weight_map": {name: file}}) read as one. Nothing is
mapped into memory and nothing but safetensors is opened: a pickle is refused, never executed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import struct
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

FILE, INDEX = "model.safetensors", "model.safetensors.index.json"
DIFFUSERS = "diffusion_pytorch_model.safetensors"  # the name that diffusers gives it
PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".pkl")
DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tensor:
    """Where one tensor lies: `offset` counts from the beginning of the file, in bytes."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


class Tensors(Mapping[str, Tensor]):
    """The tensors of one file or of several that share an index, by name."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = dict(tensors)

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    @property
    def size(self) -> int:
        """Bytes of all tensors together."""
        return sum(tensor.size for tensor in self._tensors.values())

    def read(self, name: str) -> np.ndarray:
        """One tensor, in the dtype of the file.

        Raises:
          ValueError: the file ends inside the tensor.
        """
        tensor = self._tensors[name]
        out = np.empty(tensor.shape, tensor.dtype)
        with open(tensor.path, "rb") as file:
            file.seek(tensor.offset)
            got = file.readinto(out.reshape(-1).view(np.uint8).data)
        if got != out.nbytes:
            raise ValueError(f"{tensor.path} ends inside tensor {name!r}; it is truncated, fetch it again")
        return out

    def hash(self) -> str:
        """See `hash_arrays`; it does not depend on how the tensors are spread over files."""
        return hash_arrays(self._tensors, self.read)


def hash_arrays(names: Iterable[str], read: Callable[[str], np.ndarray]) -> str:
    """SHA-256, hexadecimal, of names, shapes, dtypes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(names):
        array = read(name)
        digest.update(f"{name} {list(array.shape)} {array.dtype.name}\n".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _read_header(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, "numpy"):  # entries that overlap, leave holes, or do not fill the file are refused here
            pass
        with open(path, "rb") as file:
            length = struct.unpack("<Q", file.read(8))[0]
            header = json.loads(file.read(length))
    except (SafetensorError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged, truncated or no safetensors file ({error}); fetch it again") from None
    header.pop("__metadata__", None)
    for name, entry in header.items():
        if entry["dtype"] not in DTYPES:
            raise ValueError(f"{path}: tensor {name!r} has dtype {entry['dtype']}; readable are {', '.join(DTYPES)}")
    return {
        name: Tensor(
            path=path,
            shape=tuple(entry["shape"]),
            dtype=DTYPES[entry["dtype"]],
            offset=8 + length + entry["data_offsets"][0],
        )
        for name, entry in header.items()
    }


def open_tensors(path: str | os.PathLike[str]) -> Tensors:
    """Opens a safetensors file, an index file, or a folder that holds `model.safetensors`, its index, or the
    file that diffusers writes.

    Raises:
      FileNotFoundError: nothing is there, the folder holds no safetensors, or a shard of the index is missing.
      ValueError: a pickle was named, or a file is damaged.
    """
    path = Path(path)
    if path.suffix in PICKLES and path.name != FILE:
        raise ValueError(
            f"{path} is a pickle, which can run code when opened, so it is refused; "
            f"read its tensors safely: fae weights convert {path} --out FOLDER"
        )
    if path.is_dir():
        files = [path / name for name in (FILE, INDEX, DIFFUSERS) if (path / name).is_file()]
        if not files:
            pickles = [name.name for name in sorted(path.iterdir()) if name.suffix in PICKLES]
            seen = f" (only {', '.join(pickles)}, which may run code and are not opened)" if pickles else ""
            raise FileNotFoundError(f"{path} holds neither {FILE} nor {INDEX} nor {DIFFUSERS}{seen}")
        path = files[0]
    if not path.is_file():
        raise FileNotFoundError(f"weights file {path} does not exist")
    if not path.name.endswith(".index.json"):
        return Tensors(_read_header(path))
    return _open_index(path)


def _open_index(path: Path) -> Tensors:
    try:
        where = dict(json.loads(path.read_text())["weight_map"])
    except (ValueError, KeyError, TypeError, RecursionError):
        where = {}
    if not where or not all(isinstance(shard, str) for shard in where.values()):
        raise ValueError(f"{path} is not an index of safetensors files: it has no weight_map of file names")
    shards = {}
    for shard in sorted(set(where.values())):
        if Path(shard).name != shard:
            raise ValueError(f"{path} names the shard {shard!r}, which is not a file name in its own folder")
        if not (path.parent / shard).is_file():
            raise FileNotFoundError(f"{path} names the shard {shard}, which is not in {path.parent}")
        shards[shard] = _read_header(path.parent / shard)
    absent = [name for name, shard in where.items() if name not in shards[shard]]
    if absent:
        raise ValueError(f"{path} lists tensors that its shards lack: {', '.join(absent[:8])}")
    return Tensors({name: shards[shard][name] for name, shard in where.items()})


def write_tensors(path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray]) -> None:
    """Writes one safetensors file; it appears under its name only when it is whole."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {name: np.ascontiguousarray(array).reshape(np.shape(array)) for name, array in tensors.items()}
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        partial.touch()
        rights = partial.stat().st_mode  # those that the umask leaves; the library gives its own
        save_file(arrays, partial)
        partial.chmod(rights)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
