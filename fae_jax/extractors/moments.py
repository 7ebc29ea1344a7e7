"""The Fréchet distance between two sets of features, each described by its mean and covariance.

For Gaussians (μ₁, Σ₁) and (μ₂, Σ₂):

    d² = ‖μ₁ − μ₂‖² + tr Σ₁ + tr Σ₂ − 2 tr (Σ₁ Σ₂)^½                                  (1)

Σ₁ Σ₂ is not symmetric, and a general matrix root of it is slow, may turn complex and fails where there are fewer
samples than dimensions. But with any Σ = A Aᵀ its trace is a sum of singular values,

    tr (Σ₁ Σ₂)^½ = tr (A₁ᵀ Σ₂ A₁)^½ = Σᵢ σᵢ(A₁ᵀ A₂)                                   (2)

which is real, never negative, and keeps twice the digits, since nothing is squared.

Moments of parts are merged exactly (Chan, Golub and LeVeque), with deviations D = Σ (f − μ)(f − μ)ᵀ:

    μ = μ₁ + δ n₂/n,   D = D₁ + D₂ + δ δᵀ n₁ n₂/n,   δ = μ₂ − μ₁,   n = n₁ + n₂       (3)

A stream is cut into blocks of `BLOCK` vectors whatever its batches are, so that its moments do not depend on them,
bit for bit; merged parts of a stream agree with the whole to rounding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from scipy.linalg import eigh, svdvals

BLOCK = 1024  # feature vectors whose moments are taken at once


@dataclasses.dataclass(frozen=True, kw_only=True)
class Moments:
    """Count, mean and summed outer product of deviations of a set of features, float64.

    Attributes:
      count: number of feature vectors seen; 0: unknown, and `deviations` is the covariance itself.
      mean: (d,).
      deviations: D of equation (3), (d, d).
    """

    count: int
    mean: Float[np.ndarray, " d"]
    deviations: Float[np.ndarray, "d d"]

    @classmethod
    def of(cls, features: Float[np.ndarray, "n d"]) -> Moments:
        """The moments of a batch of feature vectors.

        Raises:
          ValueError: the batch is empty or holds a number that is not finite.
        """
        values = np.asarray(features, np.float64)
        if values.ndim != 2 or not len(values):
            raise ValueError(f"moments need features of shape (n, d) with n ≥ 1, got {values.shape}")
        if not np.isfinite(values).all():
            raise ValueError(f"{np.sum(~np.isfinite(values).all(1))} of {len(values)} feature vectors are not finite")
        mean = values.mean(0)
        centred = values - mean
        return cls(count=len(values), mean=mean, deviations=centred.T @ centred)

    def merge(self, other: Moments) -> Moments:
        """The moments of both sets together, equation (3).

        Raises:
          ValueError: the two describe features of different widths, or one is statistics of nobody knows how many.
        """
        if self.mean.shape != other.mean.shape:
            raise ValueError(f"features {len(self.mean)} and {len(other.mean)} wide cannot be merged")
        if not self.count or not other.count:
            raise ValueError("a mean and covariance of an unknown number of images cannot be merged")
        count = self.count + other.count
        step = other.mean - self.mean
        deviations = self.deviations + other.deviations
        deviations += np.outer(step * (self.count * other.count / count), step)
        return Moments(count=count, mean=self.mean + step * (other.count / count), deviations=deviations)

    @property
    def covariance(self) -> Float[np.ndarray, "d d"]:
        """The unbiased covariance D / (n − 1), as `numpy.cov` has it; zero for a single vector."""
        return self.deviations / max(self.count - 1, 1)


def factor(moments: Moments) -> Float[np.ndarray, "d r"]:
    """A of equation (2), one column for each eigenvalue; those lost in rounding count as zero and have none."""
    values, vectors = eigh(moments.covariance.T, overwrite_a=True, driver="evr")  # evr: the driver of least memory
    kept = values > values[-1] * len(values) * np.finfo(np.float64).eps
    return vectors[:, kept] * np.sqrt(values[kept])


def frechet_distance(first: Moments, second: Moments) -> float:
    """Equation (1) with the trace of equation (2): the squared distance that papers print as FID, at least 0.

    Raises:
      ValueError: the two describe features of different widths.
    """
    if first.mean.shape != second.mean.shape:
        raise ValueError(f"features {len(first.mean)} and {len(second.mean)} wide have no Fréchet distance")
    step = first.mean - second.mean
    shared = svdvals(factor(first).T @ factor(second), overwrite_a=True).sum()
    traces = sum(moments.deviations.trace() / max(moments.count - 1, 1) for moments in (first, second))
    return float(max(step @ step + traces - 2.0 * shared, 0.0))


class Running:
    """The moments of a stream of features so far, in memory for d² and `BLOCK` · d numbers."""

    def __init__(self) -> None:
        self._whole: Moments | None = None
        self._rest: list[np.ndarray] = []

    def add(self, features: Float[np.ndarray, "k d"]) -> None:
        """Takes in feature vectors.

        Raises:
          ValueError: they are of another width than those before, or not finite.
        """
        if self._rest and self._rest[0].shape[1] != features.shape[1]:
            raise ValueError(f"features {self._rest[0].shape[1]} and {features.shape[1]} wide cannot be merged")
        if len(features):
            self._rest.append(np.asarray(features, np.float64))
        if sum(map(len, self._rest)) >= BLOCK:
            rows = np.concatenate(self._rest)
            whole = len(rows) // BLOCK * BLOCK
            for block in np.split(rows[:whole], whole // BLOCK):
                self._whole = _merged(self._whole, Moments.of(block))
            self._rest = [rows[whole:].copy()] if whole < len(rows) else []

    def merge(self, other: Running) -> None:
        """Takes in what another one has taken in."""
        self._whole, self._rest = _merged(self.moments, other.moments), []

    @property
    def moments(self) -> Moments | None:
        """The moments; None where nothing was taken in."""
        return _merged(self._whole, Moments.of(np.concatenate(self._rest)) if self._rest else None)

    def state(self) -> dict[str, np.ndarray]:
        moments = self.moments
        return {name: np.asarray(value) for name, value in vars(moments).items()} if moments else {}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        self._rest, self._whole = [], None
        if state:
            self._whole = Moments(count=int(state["count"]), mean=state["mean"], deviations=state["deviations"])


def _merged(first: Moments | None, second: Moments | None) -> Moments | None:
    return first.merge(second) if first and second else first or second
