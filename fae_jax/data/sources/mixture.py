"""Several sources as one, drawn from by weight."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fae_jax.data.sources.listing import Source, listing_hash, name_hashes


class Drawn(NamedTuple):
    """How a mixture is drawn from, all that loaders ask of it: `starts` and `weights` as in `Mixture`."""

    starts: tuple[int, ...]
    weights: tuple[float | int, ...]


class Mixture:
    """A `Source` that is its parts one after the other; loaders draw from them by weight.

    Parts with the same classes share their labels; otherwise classes, and labels, follow each other.

    Attributes:
      parts: the sources.
      weights: how often each is drawn from, in proportion.
      starts: the position of each part's first image, and the number of all.
    """

    def __init__(self, parts: Sequence[Source], weights: Sequence[float | int]):
        """Raises ValueError unless there is one positive weight per part, and all or no parts have captions."""
        if not parts or len(parts) != len(weights) or min(weights) <= 0:
            raise ValueError(f"a mixture of {len(parts)} sources needs as many weights above 0, got {list(weights)}")
        captioned = {bool(getattr(part, "captioned", False)) for part in parts}
        if len(captioned) > 1:
            raise ValueError("a mixture of sources with captions and sources without cannot be drawn from")
        self.parts, self.weights, self.captioned = tuple(parts), tuple(weights), captioned.pop()
        self.starts = (0, *itertools.accumulate(len(part) for part in parts))
        shared = len({part.classes for part in parts}) == 1
        self.classes = parts[0].classes if shared else tuple(name for part in parts for name in part.classes)
        counts = [0 if shared else len(part.classes) for part in parts]
        self._first_labels = (0, *itertools.accumulate(counts))
        prints = name_hashes(part.fingerprint for part in parts)
        self.fingerprint = listing_hash("mixture", prints, np.asarray(self.starts), np.asarray(weights, np.float64))

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, position: int) -> dict[str, Any]:
        part = bisect.bisect_right(self.starts, position) - 1
        element = self.parts[part][position - self.starts[part]]
        label = element["label"] + np.int32(self._first_labels[part])
        return element | {"label": label, "index": np.int64(position)}
