"""The space the autoencoder works in: the encoder's raw features, or the same standardised per channel.

    x̃ = (x − m) / s,   x = s x̃ + m,   m, s exact over the training images                  (1)

Features are shown as colours by one projection for x and x̂: with m the mean of x and w₁, w₂, w₃ the directions of its
greatest variance, channel k of a token f is

    (wₖ·(f − m) − low) / (high − low),   low and high the 2nd and 98th percentile over x                    (2)

Statistics are kept in the record of the first stage that needs them (`fae_jax.stages.stage`).
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterable

import numpy as np
from jaxtyping import Array, Float, UInt8

from fae_jax.data.stores.statistics import LatentStatistics
from fae_jax.parallel.hosts import gather_text


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureSpace:
    """Equation (1); identity where `standardise` is False.

    Attributes:
      mean, std: (width,) float32, of the encoder's raw features.
      standardise: whether features are standardised.
    """

    mean: np.ndarray
    std: np.ndarray
    standardise: bool

    @property
    def variance(self) -> float:
        """Average channel variance in this space: what reconstruction errors are divided by."""
        return 1.0 if self.standardise else float(np.mean(self.std.astype(np.float64) ** 2))

    @property
    def rms(self) -> float:
        """Root mean square of the features in this space."""
        energy = np.mean(self.std.astype(np.float64) ** 2 + self.mean.astype(np.float64) ** 2)
        return 1.0 if self.standardise else float(np.sqrt(energy))

    def enter(self, features: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        """Raw features → this space."""
        return (features - self.mean) / self.std if self.standardise else features

    def leave(self, features: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        """This space → the encoder's own."""
        return features * self.std + self.mean if self.standardise else features


def measure(batches: Iterable[Float[np.ndarray, "b n d"]]) -> LatentStatistics:
    """Exact statistics over every token of every batch, in one pass; batches may be empty.

    Raises:
      ValueError: there is no batch.
    """
    total = None
    for batch in batches:
        piece = LatentStatistics.of_parts(batch)
        total = piece if total is None else total.merge(piece)
    if total is None:
        raise ValueError("there are no images to take feature statistics over")
    return total


def over_hosts(own: LatentStatistics) -> LatentStatistics:
    """The statistics of all hosts' images, from each host's own; the same numbers on every host, in float64."""
    texts = gather_text(json.dumps(own.to_json()))
    return functools.reduce(LatentStatistics.merge, (LatentStatistics.from_json(json.loads(text)) for text in texts))


def feature_colours(
    features: Float[np.ndarray, "n t d"], reconstructed: Float[np.ndarray, "n t d"], grid: tuple[int, int]
) -> tuple[UInt8[np.ndarray, "n y x 3"], UInt8[np.ndarray, "n y x 3"]]:
    """Equation (2) of x and of x̂ with the projection and range of x, one pixel per token.

    Raises:
      ValueError: the tokens do not fill the grid, or features have fewer than three channels.
    """
    count, tokens, width = features.shape
    if tokens != grid[0] * grid[1] or width < 3:
        raise ValueError(f"features {features.shape} do not fill a grid of {grid} with at least 3 channels")
    flat = np.asarray(features, np.float64).reshape(-1, width)
    mean = flat.mean(0)
    _, directions = np.linalg.eigh((flat - mean).T @ (flat - mean))
    # The sign of a direction is free: fixed here, so that an image does not change colours from run to run.
    axes = directions[:, :-4:-1]
    axes = axes * np.sign(axes[np.abs(axes).argmax(0), np.arange(3)])
    low, high = np.percentile((flat - mean) @ axes, [2.0, 98.0], axis=0)

    def colours(values: np.ndarray) -> np.ndarray:
        projected = (np.asarray(values, np.float64).reshape(-1, width) - mean) @ axes
        unit = np.clip((projected - low) / np.maximum(high - low, 1e-12), 0.0, 1.0)
        return np.round(255 * unit).astype(np.uint8).reshape(count, *grid, 3)

    return colours(features), colours(reconstructed)
