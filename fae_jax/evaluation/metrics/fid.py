"""FID and sFID: Fréchet distances in the features of the Inception network of 2015.

    FID     pool_3, 2048 wide                                       Heusel et al. 2017, arXiv 1706.08500
    sFID    the first 7 channels of mixed_6's convolution, 2023     Nash et al. 2021, arXiv 2103.03841

against the training images, as in ADM's evaluator (openai/guided-diffusion, evaluations/evaluator.py), or against
whatever the reference is; of reconstructions, against their originals, FID is called rFID. A reference may be known
by its statistics alone: ADM's files hold `mu` and `sigma`, and `mu_s` and `sigma_s` for sFID.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fae_jax.evaluation.metrics import Batch, compared_with, too_few
from fae_jax.extractors.moments import Running, frechet_distance


class Fid:
    """FID.

    Its score: `fid` {value, against (train, heldout or reference), dimensions, samples, reference (counts; null for a
    reference of statistics alone), too_few (a count is below twice the dimensions)}.
    """

    higher = ()
    name, tap, keys = "fid", "inception:pool_3", ("mu", "sigma")

    def __init__(self) -> None:
        self._running = Running()

    @classmethod
    def build(cls, section: None, classes: Sequence[str]) -> Fid:
        return cls()

    @classmethod
    def of_statistics(cls, statistics: Mapping[str, np.ndarray]) -> Fid:
        """A reference known by its mean and covariance alone, of which the count is not known.

        Raises:
          ValueError: the two are not there, or not a mean and a covariance.
        """
        missing = [key for key in cls.keys if key not in statistics]
        if missing:
            raise ValueError(
                f"reference statistics for {cls.name} are {' and '.join(cls.keys)}; {missing[0]} is missing"
            )
        mean, covariance = (np.asarray(statistics[key], np.float64) for key in cls.keys)
        if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
            shapes = f"{mean.shape} and {covariance.shape}"
            raise ValueError(f"{' and '.join(cls.keys)} are a mean (d,) and a covariance (d, d), got {shapes}")
        if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
            raise ValueError(f"{' or '.join(cls.keys)} of the reference hold numbers that are not finite")
        made = cls()
        made.restore({"count": np.zeros((), int), "mean": mean, "deviations": covariance})
        return made

    def update(self, batch: Batch) -> None:
        self._running.add(batch.tap(self.tap))

    def merge(self, other: Fid) -> None:
        self._running.merge(other._running)

    def state(self) -> dict[str, np.ndarray]:
        return self._running.state()

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        self._running.restore(state)

    def result(self, real: Mapping[str, Fid]) -> dict[str, Any]:
        against, other = compared_with(real, self.name)
        samples, reference = self._running.moments, other._running.moments
        if samples is None or reference is None:
            raise ValueError(f"{self.name} needs images on both sides, got none")
        value = frechet_distance(samples, reference)
        dimensions, counts = len(samples.mean), {"samples": samples.count, "reference": reference.count or None}
        known = {side: count for side, count in counts.items() if count}
        few = too_few(f"{self.name} in {dimensions} dimensions", known, 2 * dimensions)
        return {self.name: {"value": value, "against": against, "dimensions": dimensions, **counts, "too_few": few}}


class SFid(Fid):
    """sFID; its score: `sfid`, as `Fid`'s."""

    name, tap, keys = "sfid", "inception:spatial", ("mu_s", "sigma_s")
