"""Sources: random access to labelled pictures, wherever they are stored.

A source is a fixed, ordered list; everything above it addresses pictures by their position in that list alone, so
that order, augmentation and restarts are functions of numbers. `open_source` makes one from a configuration's words.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
from collections.abc import Callable, Iterable
from typing import Any, Protocol, runtime_checkable

import numpy as np

SPLITS = ("train", "heldout")


@runtime_checkable
class Source(Protocol):
    """Random access to pictures with labels.

    Attributes:
      classes: names of the classes, by label.
      fingerprint: SHA-256 of the listing (names, sizes, labels, order), hexadecimal; the same on every machine.
    """

    classes: tuple[str, ...]
    fingerprint: str

    def __len__(self) -> int: ...

    def __getitem__(self, position: int) -> dict[str, Any]:
        """{"image": uint8 (y, x, 3) RGB at native size, "label": int32, "index": int64, which is `position`}.

        Raises:
          BadPicture: this one cannot be decoded.
        """
        ...


def open_source(kind: str, *, path: str | None, split: str, holdout: float, seed: int, image_size: int) -> Source:
    """Opens a source.

    Args:
      kind: a key of `KINDS`.
      path: where the pictures are; None for kinds that bring their own.
      split: "train" or "heldout".
      holdout: the share of each class that is held out, in [0, 1).
      seed: decides which pictures are held out.
      image_size: side of the square pictures that will be asked for, in pixels.

    Raises:
      ValueError: an unknown kind or split, a share outside [0, 1), or a source that cannot be used as it is.
      FileNotFoundError: nothing is at `path`.
    """
    if kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(KINDS))}"
        raise ValueError(f"data source {kind!r} is unknown; {hint}")
    if split not in SPLITS:
        raise ValueError(f"split {split!r} is unknown; known are {', '.join(SPLITS)}")
    if not 0 <= holdout < 1:
        raise ValueError(f"the held-out share must be at least 0 and below 1, got {holdout}")
    return KINDS[kind](path=path, split=split, holdout=holdout, seed=seed, image_size=image_size)


def split_positions(names: np.ndarray, labels: np.ndarray, *, split: str, holdout: float, seed: int) -> np.ndarray:
    """Positions of one split, increasing: of every class, the `holdout` share whose hashed names come first.

    Hashing names makes the split the same on every machine and library version, and adding pictures moves few others.
    A class of two or more pictures has at least one on each side, unless nothing is to be held out.

    Args:
      names: `name_hashes` of the pictures, uint64 (n,).
      labels: their classes, (n,).
      split, holdout, seed: as for `open_source`.

    Raises:
      ValueError: the held-out split is asked for and `holdout` is 0.
    """
    if split == "heldout" and holdout == 0:
        raise ValueError("nothing is held out: the held-out share is 0; give data.holdout a value above 0")
    held = np.zeros(len(labels), bool)
    if holdout:
        order = np.lexsort((_mixed(names ^ name_hashes([f"holdout {seed}"])), labels))
        _, starts, sizes = np.unique(labels[order], return_index=True, return_counts=True)
        wanted = np.clip(np.rint(holdout * sizes), np.minimum(sizes - 1, 1), np.maximum(sizes - 1, 0))
        rank = np.arange(len(labels)) - np.repeat(starts, sizes)
        held[order[rank < np.repeat(wanted, sizes)]] = True
    return np.flatnonzero(held == (split == "heldout"))


def name_hashes(names: Iterable[str]) -> np.ndarray:
    """64 bits of SHA-256 per name, uint64 (n,)."""
    digests = (hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8] for name in names)
    return np.frombuffer(b"".join(digests), "<u8")


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """A fixed scrambling of uint64 numbers, the finaliser of SplitMix64 (Steele, Lea and Flood, 2014)."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


def listing_hash(kind: str, *columns: np.ndarray) -> str:
    """SHA-256 of a listing: columns of numbers, one row per picture in order."""
    digest = hashlib.sha256(kind.encode())
    for column in columns:
        little_endian = np.ascontiguousarray(column, column.dtype.newbyteorder("<"))
        digest.update(f"\0{little_endian.dtype.str}{len(column)}\0".encode() + little_endian.tobytes())
    return digest.hexdigest()


def _digits(*, path: str | None, image_size: int, **split: Any) -> Source:
    from fae_jax.data.digits import DigitsSource

    return DigitsSource(**split)


def _stored(module: str, name: str) -> Callable[..., Source]:
    """Opens a source class by name, importing its module when asked."""

    def build(*, path: str | None, image_size: int, **split: Any) -> Source:
        if not path:
            raise ValueError(f"a source of kind {module!r} needs a path")
        return getattr(importlib.import_module(f"fae_jax.data.{module}"), name)(path, **split)

    return build


KINDS: dict[str, Callable[..., Source]] = {
    "digits": _digits,
    "folder": _stored("folder", "FolderSource"),
    "tar": _stored("tars", "TarSource"),
    "tfds": _stored("tfds", "TfdsSource"),
    "parquet": _stored("parquet", "ParquetSource"),
    "array_record": _stored("packed", "PackedSource"),
    "coco": _stored("coco", "CocoSource"),
}
