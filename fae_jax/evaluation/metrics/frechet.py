"""The Fréchet distance between two sets of features, each described by its mean and covariance.

For Gaussians (μ₁, Σ₁) and (μ₂, Σ₂):

    d² = ‖μ₁ − μ₂‖² + tr Σ₁ + tr Σ₂ − 2 tr (Σ₁ Σ₂)^½                                  (1)

Σ₁ Σ₂ is not symmetric, and a general matrix root of it is slow, may turn complex and fails where there are fewer
samples than dimensions. But it has the eigenvalues of the symmetric Σ₁^½ Σ₂ Σ₁^½, whose root has as trace the sum
of the singular values of the product of the two symmetric roots:

    tr (Σ₁ Σ₂)^½ = tr (Σ₁^½ Σ₂ Σ₁^½)^½ = Σᵢ σᵢ(Σ₁^½ Σ₂^½)                            (2)

which is real, never negative, and keeps twice the digits, since nothing is squared.

Moments of parts are merged exactly (Chan, Golub and LeVeque), with deviations D = Σ (f − μ)(f − μ)ᵀ:

    μ = μ₁ + δ n₂/n,   D = D₁ + D₂ + δ δᵀ n₁ n₂/n,   δ = μ₂ − μ₁,   n = n₁ + n₂       (3)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from fae_jax.evaluation.metrics import Batch
from fae_jax.files.progress import say


@dataclasses.dataclass(frozen=True, kw_only=True)
class Moments:
    """Count, mean and summed outer product of deviations of a set of features, float64.

    Attributes:
      count: number of feature vectors seen.
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
          ValueError: the two describe features of different widths.
        """
        if self.mean.shape != other.mean.shape:
            raise ValueError(f"features {len(self.mean)} and {len(other.mean)} wide cannot be merged")
        count = self.count + other.count
        step = other.mean - self.mean
        return Moments(
            count=count,
            mean=self.mean + step * (other.count / count),
            deviations=self.deviations + other.deviations + np.outer(step, step) * (self.count * other.count / count),
        )

    @property
    def covariance(self) -> Float[np.ndarray, "d d"]:
        """The unbiased covariance D / (n − 1), as `numpy.cov` has it; zero for a single vector."""
        return self.deviations / max(self.count - 1, 1)


def symmetric_root(matrix: Float[np.ndarray, "d d"]) -> Float[np.ndarray, "d d"]:
    """The positive root of a positive semi-definite matrix; eigenvalues lost in rounding count as zero."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    floor = values[-1] * len(values) * np.finfo(np.float64).eps
    roots = np.sqrt(np.where(values > floor, values, 0.0))
    return (vectors * roots) @ vectors.T


def frechet_distance(first: Moments, second: Moments) -> float:
    """Equation (1) with the trace of equation (2): the squared distance that papers print as FID, at least 0.

    Raises:
      ValueError: the two describe features of different widths.
    """
    if first.mean.shape != second.mean.shape:
        raise ValueError(f"features {len(first.mean)} and {len(second.mean)} wide have no Fréchet distance")
    step = first.mean - second.mean
    product = symmetric_root(first.covariance) @ symmetric_root(second.covariance)
    shared = np.linalg.svd(product, compute_uv=False).sum()
    distance = step @ step + np.trace(first.covariance) + np.trace(second.covariance) - 2.0 * shared
    return float(max(distance, 0.0))


class Frechet:
    """Samples ↔ held-out images beside training ↔ held-out images, in the encoder's features.

    The second is what a perfect generator would reach, and the number to compare with: of as many training images as
    there are samples, since the distance is biased by the number of images on either side, and where that is near the
    number of dimensions says little else.

    Its score: `frechet` {space, dimensions, samples, train, heldout (counts), too_few (one is below twice the
    dimensions), samples_to_heldout, train_to_heldout}.
    """

    higher = ()

    def __init__(self) -> None:
        self._every: Moments | None = None
        self._among: Moments | None = None

    @classmethod
    def build(cls, section: None, classes: Sequence[str]) -> Frechet:
        return cls()

    def update(self, batch: Batch) -> None:
        among = slice(None) if batch.among is None else batch.among
        features = batch.taps("encoder")["mean"]
        chosen = features[among]
        self._every = _merged(self._every, Moments.of(features))
        self._among = _merged(self._among, Moments.of(chosen) if len(chosen) else None)

    def merge(self, other: Frechet) -> None:
        self._every = _merged(self._every, other._every)
        self._among = _merged(self._among, other._among)

    def state(self) -> dict[str, np.ndarray]:
        parts = {"every": self._every, "among": self._among}
        return {
            f"{name}_{field}": np.asarray(value)
            for name, moments in parts.items()
            if moments
            for field, value in vars(moments).items()
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        def moments(name: str) -> Moments | None:
            if f"{name}_count" not in state:
                return None
            mean, deviations = state[f"{name}_mean"], state[f"{name}_deviations"]
            return Moments(count=int(state[f"{name}_count"]), mean=mean, deviations=deviations)

        self._every, self._among = moments("every"), moments("among")

    def result(self, real: Mapping[str, Frechet]) -> dict[str, Any]:
        train, heldout = real.get("train", Frechet())._among, real.get("heldout", Frechet())._every
        samples = self._every
        if samples is None or train is None or heldout is None:
            raise ValueError("the Fréchet distance needs images on both sides, got none")
        counts = {"samples": samples.count, "train": train.count, "heldout": heldout.count}
        dimensions = len(samples.mean)
        too_few = min(counts.values()) < 2 * dimensions
        if too_few:
            few = ", ".join(f"{count} {name}" for name, count in counts.items())
            say(f"warning: a Fréchet distance in {dimensions} dimensions says little of so few images ({few})")
        return {
            "frechet": {
                "space": "the encoder's patch features, averaged over the patches",
                "dimensions": dimensions,
                **counts,
                "too_few": too_few,
                "samples_to_heldout": frechet_distance(samples, heldout),
                "train_to_heldout": frechet_distance(train, heldout),
            }
        }


def _merged(first: Moments | None, second: Moments | None) -> Moments | None:
    return first.merge(second) if first and second else first or second
