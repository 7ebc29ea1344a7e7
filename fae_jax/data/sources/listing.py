"""A listing of labelled images: the contract of a source, which images are held out, and the hash of it all.

A source is a fixed, ordered list; everything above it addresses images by their position in that list alone, so
that order, augmentation and restarts are functions of numbers.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

import numpy as np

from fae_jax.files import storage
from fae_jax.files.storage import StoredFile

SPLITS = ("train", "heldout")
LARGEST_LABEL = 10**6
_SPLITS = {
    "train": {"train", "training"},
    "validation": {"validation", "valid", "val", "dev"},
    "test": {"test", "testing"},
    "heldout": {"heldout", "holdout"},
}
NOTHING_HELD_OUT = (
    "nothing is held out: name such images with --config.data.heldout_path=…, before or after training, or begin "
    "with a share of the training images, --config.data.holdout=0.1"
)


@runtime_checkable
class Source(Protocol):
    """Random access to images with labels.

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
          BadImage: this one cannot be decoded.
        """
        ...


def shards(path: str, suffix: str) -> list[StoredFile]:
    """`find_files` of one kind, but a folder in which files of several splits lie together is refused.

    Raises:
      FileNotFoundError, ValueError: see `find_files`; or the files' names tell of different splits.
    """
    files = storage.find_files(path, (suffix,))
    splits = {split for file in files for split in split_words(file.name)}
    if len(splits) > 1 and len(files) > 1 and not storage.is_pattern(path):
        raise ValueError(
            f"{path} holds files of {' and of '.join(sorted(splits))}; name those to train on, such as "
            f"{storage.join(path, f'train-*{suffix}')}, and set data.heldout_path to the others"
        )
    return files


def split_words(name: str) -> set[str]:
    """The splits that the name of a file or folder speaks of."""
    words = re.findall("[a-z]+", name.lower())
    return {split for split, forms in _SPLITS.items() if not forms.isdisjoint(words)}


def numbered(labels: np.ndarray, path: str, remedy: str) -> tuple[str, ...]:
    """Names of classes that have none: their numbers.

    Raises:
      ValueError: they are counted from 1, so that class 0 would be an empty one; or they are no classes.
    """
    last = int(labels.max())
    if last > LARGEST_LABEL:
        raise ValueError(f"{path} has an image of class {last:,}, and classes are at most {LARGEST_LABEL:,}")
    if last > 1 and set(np.unique(labels[labels >= 0]).tolist()) == set(range(1, last + 1)):
        raise ValueError(f"{path} counts its {last} classes from 1, and they are counted from 0 here: {remedy}")
    return tuple(map(str, range(last + 1)))


def split_positions(names: np.ndarray, labels: np.ndarray, *, split: str, holdout: float, seed: int) -> np.ndarray:
    """Positions of one split, increasing: of every class, the `holdout` share whose hashed names come first.

    Hashing names makes the split the same on every machine and library version, and adding images moves few others.
    A class of two or more images has at least one on each side, unless nothing is to be held out.

    Args:
      names: `name_hashes` of the images, uint64 (n,).
      labels: their classes, (n,).
      split, holdout, seed: as for `open_source`.

    Raises:
      ValueError: the held-out split is asked for and `holdout` is 0; or no class has two images.
    """
    if split == "heldout" and holdout == 0:
        raise ValueError(NOTHING_HELD_OUT)
    held = np.zeros(len(labels), bool)
    if holdout:
        order = np.lexsort((_mixed(names ^ name_hashes([f"holdout {seed}"])), labels))
        _, starts, sizes = np.unique(labels[order], return_index=True, return_counts=True)
        count = np.clip(np.rint(holdout * sizes), np.minimum(sizes - 1, 1), np.maximum(sizes - 1, 0))
        rank = np.arange(len(labels)) - np.repeat(starts, sizes)
        held[order[rank < np.repeat(count, sizes)]] = True
        if len(held) and not held.any():
            raise ValueError(
                "no image can be held out, for no class has two; give more images, or set data.holdout to 0, it is "
                f"{holdout:g}, and data.heldout_path to images of their own"
            )
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
    """SHA-256 of a listing: columns of numbers, one row per image in order."""
    digest = hashlib.sha256(kind.encode())
    for column in columns:
        little_endian = np.ascontiguousarray(column, column.dtype.newbyteorder("<"))
        digest.update(f"\0{little_endian.dtype.str}{len(column)}\0".encode() + little_endian.tobytes())
    return digest.hexdigest()
