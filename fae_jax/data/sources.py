"""Sources: random access to labelled pictures, wherever they are stored.

A source is a fixed, ordered list; everything above it addresses pictures by their position in that list alone, so
that order, augmentation and restarts are functions of numbers. `open_source` makes one from a configuration's words.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Iterable, Sequence
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


def split_positions(
    names: Sequence[str], labels: Sequence[int], *, split: str, holdout: float, seed: int
) -> np.ndarray:
    """Positions of one split, increasing: the `holdout` share of every class whose hashed names come first.

    Hashing names makes the split the same on every machine and library version, and adding pictures moves few others.
    A class of two or more pictures has at least one on each side, unless nothing is to be held out.

    Raises:
      ValueError: the held-out split is asked for and `holdout` is 0.
    """
    if split == "heldout" and holdout == 0:
        raise ValueError("nothing is held out: the held-out share is 0; give it a value above 0")
    classes = np.asarray(labels)
    order = np.array([hashlib.sha256(f"{seed}\0{name}".encode()).digest() for name in names], dtype="S32")
    held = np.zeros(len(classes), bool)
    for label in np.unique(classes) if holdout else ():
        members = np.flatnonzero(classes == label)
        count = round(holdout * len(members))
        if len(members) > 1:
            count = min(max(count, 1), len(members) - 1)
        held[members[np.argsort(order[members], kind="stable")[:count]]] = True
    return np.flatnonzero(held == (split == "heldout"))


def listing_hash(kind: str, lines: Iterable[str]) -> str:
    """SHA-256 of a listing, one line per picture in order."""
    digest = hashlib.sha256(kind.encode())
    for line in lines:
        digest.update(b"\n" + line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _digits(**options: Any) -> Source:
    from fae_jax.data.digits import DigitsSource

    return DigitsSource(split=options["split"], holdout=options["holdout"], seed=options["seed"])


def _folder(**options: Any) -> Source:
    from fae_jax.data.folder import FolderSource

    if options["path"] is None:
        raise ValueError("a folder of pictures needs a path: one subfolder per class")
    chosen = {key: options[key] for key in ("split", "holdout", "seed")}
    return FolderSource(options["path"], **chosen)


KINDS: dict[str, Callable[..., Source]] = {"digits": _digits, "folder": _folder}
