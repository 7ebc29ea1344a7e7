"""One image's way through FAE, with the sizes of this run: each array a block as tall as it is large."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from fae_jax.report.reading import Record, branch, finite, measured

TALLEST, SHORTEST = 136, 26  # pixels on the page


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sizes:
    """What is known of the arrays and networks; None or missing where nothing in the working directory says it.

    Attributes:
      image, features, latent: (rows, columns, channels).
      parameters: network → number of parameters.
    """

    image: tuple[int, ...] | None
    features: tuple[int, ...] | None
    latent: tuple[int, ...] | None
    parameters: dict[str, float]

    @property
    def squeeze(self) -> float | None:
        """How many times fewer numbers the latent has than the features."""
        known = self.features and self.latent
        return math.prod(self.features or ()) / math.prod(self.latent or ()) if known else None

    def height(self, sizes: tuple[int, ...] | None) -> int:
        """Pixels of an array's block: its side follows the root of its numbers; half-way where they are not known."""
        if not sizes:
            return (SHORTEST + TALLEST) // 2
        largest = max(math.prod(values) for values in (self.image, self.features, self.latent) if values)
        return SHORTEST + round((TALLEST - SHORTEST) * math.sqrt(math.prod(sizes) / largest))


def _triple(values: object) -> tuple[int, ...] | None:
    if not isinstance(values, Sequence) or len(values) != 3:
        return None
    return tuple(values) if all(isinstance(v, int) and v > 0 for v in values) else None


def known_sizes(record: Record) -> Sizes:
    """From `sizes.json`; else the image and feature width from the configuration, the latent from its cache."""
    image, features, latent = (_triple(record.sizes.get(name)) for name in ("image", "features", "latent"))
    side = finite(record.setting("data", "image_size"))
    if image is None and side:
        image = (int(side), int(side), 3)
    cached = record.latents[-1].get("shape") if record.latents else None
    if (
        latent is None
        and isinstance(cached, list)
        and len(cached) == 2
        and all(isinstance(v, int) and v > 0 for v in cached)
    ):
        rows = math.isqrt(cached[0])
        latent = (rows, rows, cached[1]) if rows * rows == cached[0] else None
    width = finite(record.setting("encoder", "width"))
    if features is None and latent and width and record.setting("encoder", "train"):
        features = (latent[0], latent[1], int(width))
    counts = branch(record.sizes, "parameters")
    known = {name: count for name in counts if (count := measured(counts, name)) is not None}
    return Sizes(image=image, features=features, latent=latent, parameters=known)
