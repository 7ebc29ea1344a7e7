"""Exact statistics of latents, gathered in one pass, in pieces, in any order.

For posterior means μ_i and variances σ_i² of one channel, over the N tokens of all images, z = μ + σ ε has

    E[z] = (1/N) Σ μ_i,   Var[z] = (1/N) Σ (μ_i − E[z])² + (1/N) Σ σ_i²       (1)

Pieces A and B with counts n, means m and sums of squared deviations d merge (Chan, Golub and LeVeque, 1979) as

    m = m_A + (m_B − m_A) n_B / n,   d = d_A + d_B + (m_B − m_A)² n_A n_B / n  (2)

which, unlike a difference of sums of squares, loses no digits when the mean is large. All in float64.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_ROWS = 2**14  # tokens turned into float64 at a time


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LatentStatistics:
    """Sums over tokens, per channel.

    Attributes:
      count: tokens seen.
      mean: average of the posterior means, (c,).
      deviation: sum of squared deviations of the posterior means from `mean`, (c,).
      noise: sum of the posterior variances, (c,).
    """

    count: int
    mean: np.ndarray
    deviation: np.ndarray
    noise: np.ndarray

    @classmethod
    def empty(cls, channels: int) -> LatentStatistics:
        """Statistics over nothing: merging them changes nothing."""
        zero = np.zeros(channels)
        return cls(count=0, mean=zero, deviation=zero, noise=zero)

    @classmethod
    def of_parts(cls, mean: np.ndarray, log_variance: np.ndarray | None = None) -> LatentStatistics:
        """Statistics over posteriors (…, c), in any float dtype; without variance, over values such as features."""
        total = cls.empty(mean.shape[-1])
        means = mean.reshape(-1, mean.shape[-1])
        # In pieces, for a batch of features of a large encoder takes gigabytes in float64.
        for start in range(0, len(means), _ROWS):
            values = means[start : start + _ROWS].astype(np.float64)
            centre, noise = values.mean(0), np.zeros(mean.shape[-1])
            if log_variance is not None:
                piece = log_variance.reshape(means.shape)[start : start + _ROWS]
                noise = np.exp(piece.astype(np.float64)).sum(0)
            deviation = np.square(values - centre).sum(0)
            total = total.merge(cls(count=len(values), mean=centre, deviation=deviation, noise=noise))
        return total

    def merge(self, other: LatentStatistics) -> LatentStatistics:
        """Equation (2)."""
        count = self.count + other.count
        if count == 0:
            return self
        gap = other.mean - self.mean
        return LatentStatistics(
            count=count,
            mean=self.mean + gap * (other.count / count),
            deviation=self.deviation + other.deviation + np.square(gap) * (self.count * other.count / count),
            noise=self.noise + other.noise,
        )

    @property
    def variance(self) -> np.ndarray:
        """Var[z] of equation (1), (c,)."""
        return (self.deviation + self.noise) / self.count

    @property
    def std(self) -> np.ndarray:
        """Standard deviation of z, (c,)."""
        return np.sqrt(self.variance)

    def standardise(self, z: Float[Array, "*b n c"]) -> Float[Array, "*b n c"]:
        """Latents → zero mean and unit variance per channel, float32."""
        return (z.astype(jnp.float32) - self.mean.astype(np.float32)) / self.std.astype(np.float32)

    def unstandardise(self, z: Float[Array, "*b n c"]) -> Float[Array, "*b n c"]:
        """Inverse of `standardise`: what a generator makes → what the feature decoder reads."""
        return z.astype(jnp.float32) * self.std.astype(np.float32) + self.mean.astype(np.float32)

    def to_json(self) -> dict[str, Any]:
        """Plain values; float64 survives JSON exactly. "variance" is for readers, and not read back."""
        sums = {name: getattr(self, name).tolist() for name in ("mean", "deviation", "noise")}
        return {"count": self.count, **sums, "variance": self.variance.tolist() if self.count else []}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> LatentStatistics:
        """Inverse of `to_json`."""
        sums = {name: np.asarray(values[name], np.float64) for name in ("mean", "deviation", "noise")}
        return cls(count=values["count"], **sums)
