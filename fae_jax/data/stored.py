"""What all sources of picture files share: bytes, a name, a label and captions by position."""

from __future__ import annotations

import abc
from typing import Any

import numpy as np

from fae_jax.data.decode import BadPicture, decode_picture


class StoredSource(abc.ABC):
    """A `Source` over encoded pictures.

    Attributes:
      classes: names of the classes, by label; empty where pictures have captions only.
      fingerprint: of the listing.
      labels: int32 (n,), −1 where there is none.
      captioned: whether elements carry "captions", a tuple of one or more texts.
    """

    classes: tuple[str, ...]
    fingerprint: str
    labels: np.ndarray
    captioned: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    @abc.abstractmethod
    def name(self, position: int) -> str:
        """Where picture `position` is, for people."""

    @abc.abstractmethod
    def read(self, position: int) -> bytes:
        """Picture `position` as it is stored, undecoded; may raise OSError."""

    def captions(self, position: int) -> tuple[str, ...]:
        """Its captions.

        Raises:
          BadPicture: there is none that can be read.
        """
        raise BadPicture(f"{self.name(position)}: has no caption")

    def __getitem__(self, position: int) -> dict[str, Any]:
        """See `Source`; with "captions" if `captioned`."""
        try:
            data = self.read(position)
        except OSError as error:
            raise BadPicture(f"{self.name(position)}: {error.strerror or error}") from error
        image = decode_picture(data, self.name(position))
        element = {"image": image, "label": self.labels[position], "index": np.int64(position)}
        return element | {"captions": self.captions(position)} if self.captioned else element
