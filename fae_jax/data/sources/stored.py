"""What all sources of image files share: by position, a name, stored bytes, a label, captions."""

from __future__ import annotations

import abc
import collections
import logging
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from fae_jax.data.decode import MAX_PIXELS, BadImage, decode_image

log = logging.getLogger(__name__)


class StoredImage(NamedTuple):
    """An image as it is stored: encoded bytes, label (−1 if none) and captions."""

    data: bytes
    label: int
    captions: tuple[str, ...] = ()


class Skip(NamedTuple):
    """Something left out: what it is called, why, and what else is known."""

    name: str
    reason: str
    detail: str = ""


def warn_of(skipped: Iterable[Skip], path: str) -> None:
    """Says what is left out of a source, by reason."""
    for reason, count in counted(skipped).items():
        log.warning("%s: %d left out: %s", path, count, reason)


def counted(skipped: Iterable[Skip]) -> dict[str, int]:
    """Reason → how many, most frequent first."""
    return dict(collections.Counter(skip.reason for skip in skipped).most_common())


class StoredSource(abc.ABC):
    """A `Source` over encoded images.

    Attributes:
      classes: names of the classes, by label; empty where images have captions only.
      fingerprint: the listing's hash.
      keys: `name_hashes` of the images, uint64 (n,).
      captioned: whether elements carry "captions", a tuple of one or more texts.
      skipped: what lies there and is no part of it.
      max_pixels: see `decode_image`.
    """

    classes: tuple[str, ...]
    fingerprint: str
    keys: np.ndarray
    captioned: bool = False
    skipped: Sequence[Skip] = ()
    max_pixels: int = MAX_PIXELS

    def __len__(self) -> int:
        return len(self.keys)

    @abc.abstractmethod
    def name(self, position: int) -> str:
        """Where image `position` is, for people."""

    @abc.abstractmethod
    def stored(self, position: int) -> StoredImage:
        """Image `position`, undecoded.

        Raises:
          OSError: it cannot be read.
          ValueError: it can, and makes no sense.
        """

    def __getitem__(self, position: int) -> dict[str, Any]:
        """See `Source`; with "captions" if `captioned`."""
        try:
            stored = self.stored(position)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or " ".join(map(str, error.args))
            raise BadImage(f"{self.name(position)}: {reason}") from error
        if not self.captioned and not 0 <= stored.label < len(self.classes):
            raise BadImage(f"{self.name(position)}: class {stored.label} is not one of {len(self.classes)}")
        image = decode_image(stored.data, self.name(position), self.max_pixels)
        element = {"image": image, "label": np.int32(stored.label), "index": np.int64(position)}
        return element | {"captions": stored.captions} if self.captioned else element
