"""Sets of images as `.npz` files in the layout that ADM's evaluator reads, written and read a batch at a time.

    arr_0   the images, uint8 (n, y, x, 3)
    arr_1   their labels (n,), where there are any

Files that name them `images` and `labels`, as earlier versions wrote them, are read too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from fae_jax.files.paths import Path
from fae_jax.files.storage import exists, open_file
from fae_jax.files.writing import whole_file

IMAGES, LABELS = ("arr_0", "images"), ("arr_1", "labels")


@contextlib.contextmanager
def writing_images(
    path: Path, labels: Int[np.ndarray, " n"], size: tuple[int, int]
) -> Iterator[Callable[[np.ndarray], None]]:
    """Gives a function that adds the next images, uint8 (k, y, x, 3); the file is there when the body ends.

    Raises:
      ValueError: not as many images were added as there are labels.
    """
    shape, added = (len(labels), *size, 3), 0
    with whole_file(path) as file, zipfile.ZipFile(file, "w") as archive:
        with archive.open(f"{IMAGES[0]}.npy", "w", force_zip64=True) as member:
            about = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(member, about)

            def add(images: UInt8[np.ndarray, "k y x 3"]) -> None:
                nonlocal added
                added += len(images)
                member.write(np.ascontiguousarray(images).data)

            yield add
            if added != len(labels):
                raise ValueError(f"{path.name}: {added} images were added for {len(labels)} labels")
        with archive.open(f"{LABELS[0]}.npy", "w") as member:
            np.lib.format.write_array(member, labels, allow_pickle=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageArchive:
    """The images of an `.npz` file, which are read when they are asked for.

    Attributes:
      path: of the file.
      key: the name its images have.
      shape: (n, y, x, 3).
      labels: (n,), or None.
    """

    path: str
    key: str
    shape: tuple[int, int, int, int]
    labels: Int[np.ndarray, " n"] | None

    @classmethod
    def open(cls, path: str) -> ImageArchive:
        """Looks at what the file holds.

        Raises:
          FileNotFoundError: it does not exist.
          ValueError: it is damaged, holds no images, or they are not uint8 (n, y, x, 3).
        """
        with _reading(path) as archive:
            names = {name.removesuffix(".npy") for name in archive.namelist()}
            key = next((name for name in IMAGES if name in names), None)
            if key is None:
                held = ", ".join(sorted(names))[:100] or "nothing"
                raise ValueError(f"{path} holds {held}, and images are called {IMAGES[0]}: uint8 (n, y, x, 3)")
            with archive.open(f"{key}.npy") as member:
                shape, dtype = _header(member, path)
                if dtype != np.uint8 or len(shape) != 4 or shape[-1] != 3:
                    range_ = f", {_range(member, dtype)}" if dtype.kind == "f" else ""
                    raise ValueError(
                        f"{path}: {key} is {dtype} {shape}{range_}, and images are uint8 (n, y, x, 3), from 0 to 255"
                    )
            label_key = next((name for name in LABELS if name in names), None)
            labels = None
            if label_key is not None:
                with archive.open(f"{label_key}.npy") as member:
                    labels = np.lib.format.read_array(member, allow_pickle=False)
        if not shape[0]:
            raise ValueError(f"{path}: {key} holds no image")
        if labels is not None and (labels.shape != shape[:1] or labels.dtype.kind not in "iu"):
            raise ValueError(
                f"{path}: {label_key} is {labels.dtype} {labels.shape}, and labels of {shape[0]} images are whole "
                f"numbers ({shape[0]},)"
            )
        return cls(path=path, key=key, shape=shape, labels=labels)

    def batches(self, size: int) -> Iterator[UInt8[np.ndarray, "k y x 3"]]:
        """The images in order, at most `size` at a time.

        Raises:
          ValueError: the file is cut short or damaged.
        """
        count, *each = self.shape
        with _reading(self.path) as archive, archive.open(f"{self.key}.npy") as member:
            _header(member, self.path)
            for start in range(0, count, size):
                rows = min(size, count - start)
                data = member.read(rows * int(np.prod(each)))
                if len(data) != rows * int(np.prod(each)):
                    raise ValueError(f"{self.path} is damaged: {self.key} ends after {start} of {count} images")
                yield np.frombuffer(data, np.uint8).reshape(rows, *each)


@contextlib.contextmanager
def _reading(path: str) -> Iterator[zipfile.ZipFile]:
    if not exists(path):
        raise FileNotFoundError(f"{path} does not exist")
    try:
        with open_file(path) as file, zipfile.ZipFile(file) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, NotImplementedError) as error:
        reason = " ".join(f"{type(error).__name__} {error}".split())[:100]
        raise ValueError(f"{path} is damaged or no .npz file ({reason})") from error


def _header(member: Any, path: str) -> tuple[tuple[Any, ...], np.dtype]:
    """Shape and dtype of an array; leaves the file at its first byte."""
    try:
        version = np.lib.format.read_magic(member)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, by_column, dtype = read(member)
    except ValueError as error:
        raise ValueError(f"{path} is damaged or no .npz file ({' '.join(str(error).split())[:100]})") from error
    if by_column and len(shape) > 1:
        raise ValueError(f"{path}: an array is stored column by column; write it with np.ascontiguousarray")
    return shape, dtype


def _range(member: Any, dtype: np.dtype, numbers: int = 2**20) -> str:
    """The range of the first numbers of an array, in words."""
    data = member.read(numbers * dtype.itemsize)
    values = np.frombuffer(data[: len(data) // dtype.itemsize * dtype.itemsize], dtype)
    return f"from {values.min():g} to {values.max():g}" if len(values) else "empty"
