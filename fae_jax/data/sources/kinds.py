"""Sources: random access to labelled images, wherever they are stored.

A source is a fixed, ordered list; everything above it addresses images by their position in that list alone, so
that order, augmentation and restarts are functions of numbers. `open_source` makes one from a configuration's words.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from fae_jax.data.sources.listing import SPLITS, Source
from fae_jax.files.names import nearest


def open_source(kind: str, *, path: str | None, split: str, holdout: float, seed: int, image_size: int) -> Source:
    """Opens a source.

    Args:
      kind: a key of `KINDS`.
      path: where the images are; None for kinds that bring their own.
      split: "train" or "heldout".
      holdout: the share of each class that is held out, in [0, 1).
      seed: decides which images are held out.
      image_size: side of the square images that will be asked for, in pixels.

    Raises:
      ValueError: an unknown kind or split, a share outside [0, 1), or a source that cannot be used as it is.
      FileNotFoundError: nothing is at `path`.
    """
    if kind not in KINDS:
        raise ValueError(f"data source {kind!r} is unknown; {nearest(kind, sorted(KINDS), limit=len(KINDS))}")
    if split not in SPLITS:
        raise ValueError(f"split {split!r} is unknown; known are {', '.join(SPLITS)}")
    if not 0 <= holdout < 1:
        raise ValueError(f"the held-out share must be at least 0 and below 1, got {holdout}")
    return KINDS[kind](path=path, split=split, holdout=holdout, seed=seed, image_size=image_size)


def _digits(*, path: str | None, image_size: int, **split: Any) -> Source:
    from fae_jax.data.sources.digits import DigitsSource

    return DigitsSource(**split)


def _stored(module: str, name: str) -> Callable[..., Source]:
    """Opens a source class by name, importing its module when asked."""

    def build(*, path: str | None, image_size: int, **split: Any) -> Source:
        if not path:
            raise ValueError(f"a source of kind {module!r} needs a path")
        return getattr(importlib.import_module(f"fae_jax.data.sources.{module}"), name)(path, **split)

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
