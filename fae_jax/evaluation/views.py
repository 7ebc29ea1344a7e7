"""Images in order, and what the networks say of them: one batch at a time, nothing of a whole split in memory.

    image → encoder (x, its class token) → compressor (z) → feature decoder (x̂) → pixel decoder (image)

Each arrow is walked when something first asks for what lies behind it, so that a probe runs no pixel decoder and a
working directory that has none can be probed.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Array, Bool, Float, Int, UInt8

from fae_jax.data.batching import Reading
from fae_jax.data.loader import ordered_batches
from fae_jax.data.pixels import to_pixels, to_uint8
from fae_jax.data.sources.listing import Source
from fae_jax.data.stores.latents import LatentSource
from fae_jax.encoders.registry import EncoderOutput
from fae_jax.files.progress import report_progress
from fae_jax.model import FAE


class View:
    """One batch. Arrays of the networks have all its rows, also those that only fill it up; `kept` leaves those out.

    Args:
      layers: blocks of the encoder that `outputs` is to hold; see `FAE.outputs`.
    """

    def __init__(self, fae: FAE, batch: dict[str, np.ndarray], layers: int = 0):
        self.fae, self._batch, self._layers = fae, batch, layers

    def kept(self, rows: Any) -> np.ndarray:
        """The rows that are images, as a NumPy array."""
        return np.asarray(rows)[self._batch["mask"]]

    @property
    def images(self) -> UInt8[np.ndarray, "k height width 3"]:
        return self.kept(self._batch["image"])

    @property
    def labels(self) -> Int[np.ndarray, " k"]:
        return self.kept(self._batch["label"])

    @property
    def index(self) -> Int[np.ndarray, " b"]:
        """Position of each row's image in its source."""
        return self._batch["index"]

    @property
    def captions(self) -> list[list[str]]:
        """Of each image, all its captions."""
        return [json.loads(text) for text in self.kept(self._batch["captions"])]

    @functools.cached_property
    def outputs(self) -> EncoderOutput:
        """All that the encoder says; its patches are x."""
        if "features" in self._batch:
            return EncoderOutput(jnp.asarray(self._batch["features"], jnp.float32))
        return self.fae.outputs(to_pixels(self.fae.spread(self._batch["image"])), self._layers)

    @property
    def features(self) -> Float[Array, "b n d"]:
        """x."""
        return self.outputs.patches

    @functools.cached_property
    def latents(self) -> Float[Array, "b n c"]:
        """z, the posterior's mean."""
        if not hasattr(self.fae.tokenizer, "encoder"):
            return _tokens(self.fae.encode(to_pixels(self.fae.spread(self._batch["image"]))))
        return _tokens(self.fae.compress(self._map(self.features)))

    @functools.cached_property
    def reconstructed(self) -> Float[Array, "b n d"]:
        """x̂, in the encoder's own space."""
        return _tokens(self.fae.reconstruct_features(self._map(self.latents)))

    @functools.cached_property
    def decoded(self) -> UInt8[np.ndarray, "k height width 3"]:
        """The images that come back."""
        return self.kept(to_uint8(self.fae.decode(self._map(self.latents))))

    def _map(self, tokens: Array) -> Array:
        return rearrange(tokens, "b (y x) d -> b y x d", y=self.fae.tokenizer.grid[0])


def evenly(start: int, count: int, total: int, chosen: int) -> Bool[np.ndarray, " count"]:
    """Which of `count` positions from `start` on belong to an even choice of `chosen` among `total`, since sources
    are often sorted by class."""
    return np.diff(np.arange(start, start + count + 1) * min(chosen, total) // total) > 0


class Examples:
    """What was seen of an even choice of `count` images among the `total` of a walk."""

    def __init__(self, count: int, total: int):
        self._count, self._total, self._seen = count, total, 0
        self._parts: list[list[np.ndarray]] = []

    def add(self, *arrays: np.ndarray) -> None:
        """Takes in arrays of the walk's next images."""
        chosen = evenly(self._seen, len(arrays[0]), self._total, self._count)
        self._seen += len(chosen)
        self._parts.append([array[chosen] for array in arrays])

    def arrays(self) -> list[np.ndarray]:
        """Of the chosen images, in the order of `add`."""
        return [np.concatenate(part) for part in zip(*self._parts, strict=True)]


def _tokens(maps: Array) -> Array:
    return rearrange(maps, "b y x d -> b (y x) d")


def walk(
    fae: FAE,
    source: Source,
    *,
    what: str,
    limit: int = 0,
    layers: int = 0,
    part: tuple[int, int] | None = None,
    stored: LatentSource | None = None,
) -> Iterator[View]:
    """The first `limit` images of a source (0: all), in order, in batches of `sampling.batch`.

    Args:
      what: said in the lines of progress on standard error.
      part: the first of the images walked over, and the one after the last; None for all.
      stored: their features, so that the encoder does not run.
    """
    first, last = part or (0, min(limit or len(source), len(source)))
    total = last - first
    if not total:
        return
    seen, progress = 0, report_progress(what)
    reading = Reading(workers=fae.config.data.workers)
    size, batch = fae.config.data.image_size, min(fae.config.sampling.batch, total)
    with ordered_batches(source, batch=batch, image_size=size, start=first, stop=last, reading=reading) as batches:
        for rows in batches:
            if stored is not None:
                positions = np.minimum(rows["index"], len(stored) - 1).tolist()
                rows["features"] = stored.read(positions, [0] * len(positions))["features"]
            yield View(fae, rows, layers)
            seen += len(rows["mask"])
            progress(min(seen, total), total)
