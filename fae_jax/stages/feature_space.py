"""The space the autoencoder works in: the encoder's raw features, or the same standardised per channel.

    x̃ = (x − m) / s,   x = s x̃ + m,   m, s exact over the training pictures                  (1)

Statistics are kept in `features/statistics.json` with the hashes of the encoder and data they belong to.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Array, Float

from fae_jax.data.statistics import LatentStatistics
from fae_jax.workdir import write_json


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

    def enter(self, features: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        """Raw features → this space."""
        return (features - self.mean) / self.std if self.standardise else features

    def leave(self, features: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        """This space → the encoder's own."""
        return features * self.std + self.mean if self.standardise else features


def measure(batches: Iterable[Float[np.ndarray, "b n d"]]) -> LatentStatistics:
    """Exact statistics over every token of every batch, in one pass.

    Raises:
      ValueError: there is no batch.
    """
    pieces = [LatentStatistics.of_values(batch) for batch in batches]
    if not pieces:
        raise ValueError("there are no pictures to take feature statistics over")
    return functools.reduce(LatentStatistics.merge, pieces)


def load_or_measure(
    file: Path, identity: dict[str, str], features: Callable[[], Iterable[np.ndarray]], standardise: bool
) -> FeatureSpace:
    """The feature space of an experiment: from `file` if that is of the same identity, else measured and kept."""
    kept = json.loads(file.read_text()) if file.is_file() else {}
    if kept.get("identity") != identity:
        measured = measure(features())
        kept = {
            "identity": identity,
            "tokens": measured.count,
            "mean": measured.mean.tolist(),
            "std": measured.std.tolist(),
        }
        write_json(file, kept)
    mean, std = np.asarray(kept["mean"], np.float32), np.asarray(kept["std"], np.float32)
    return FeatureSpace(mean=mean, std=np.maximum(std, 1e-6), standardise=standardise)
