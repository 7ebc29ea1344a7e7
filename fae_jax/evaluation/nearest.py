"""The nearest training image of a sample, and how near is too near.

The distance is in pixel space, pixels p in [0, 1]:

    d(a, b) = √ mean (p_a − p_b)²                                                      (1)

from 0 (the same image) to 1. How near an *honest* new image comes to the training set is measured on real
held-out images, so a sample is called close when it lies nearer to its training image than all but the nearest
hundredth of them do. One sample in a hundred is expected to be close; a generator that copies has far more. Beside
it stands the ratio of the nearest to the second nearest distance: near 0 for a copy of one image, near 1 for a
sample that merely lies in the thick of its class.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from fae_jax.evaluation.voting import search

CLOSE_PERCENTILE = 1.0
CANDIDATES = 8  # that the search in float32 gives, to be measured again


@dataclasses.dataclass(frozen=True, kw_only=True)
class Nearest:
    """For each of n images its nearest reference.

    Attributes:
      index: position of the nearest reference, (n,).
      distance: equation (1), (n,), float64.
      second: distance to the second nearest reference, (n,); infinite where there is only one.
    """

    index: Int[np.ndarray, " n"]
    distance: Float[np.ndarray, " n"]
    second: Float[np.ndarray, " n"]

    @property
    def ratio(self) -> Float[np.ndarray, " n"]:
        """Nearest over second nearest distance; 1 where both are 0 (the reference itself occurs twice)."""
        return np.where(self.second > 0, self.distance / np.where(self.second > 0, self.second, 1.0), 1.0)


def nearest(queries: UInt8[np.ndarray, "n y x c"], references: UInt8[np.ndarray, "m y x c"]) -> Nearest:
    """The nearest of `references` to each of `queries` by equation (1), all compared.

    The search in float32 gives eight candidates; their distances are taken again by plain subtraction in float64, so
    that a copy is at exactly 0 and not at a rounding error. Of equally near references the first counts.

    Raises:
      ValueError: there are no references, or images of another size.
    """
    if not len(references):
        raise ValueError("there are no reference images to look for the nearest one in")
    if queries.shape[1:] != references.shape[1:]:
        raise ValueError(f"images of {queries.shape[1:]} have no distance to images of {references.shape[1:]}")
    queries, references = queries.reshape(len(queries), -1), references.reshape(len(references), -1)
    _, candidates = search(queries, references, min(CANDIDATES, len(references)), _centred, penalty=0.5)
    index = np.empty(len(queries), np.int64)
    distance, second = np.empty(len(queries)), np.full(len(queries), np.inf)
    for row, (query, chosen) in enumerate(zip(queries, np.sort(candidates, axis=1), strict=True)):
        difference = references[chosen].astype(np.float64) - query
        exact = np.sqrt(np.mean((difference / 255.0) ** 2, axis=1))
        order = np.argsort(exact, kind="stable")
        index[row], distance[row] = chosen[order[0]], exact[order[0]]
        if len(order) > 1:
            second[row] = exact[order[1]]
    return Nearest(index=index, distance=distance, second=second)


def _centred(pixels: np.ndarray) -> np.ndarray:
    """Around 0, where products of float32 lose least."""
    return pixels.astype(np.float32) - 127.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class CopyCheck:
    """Distances of samples to the training images beside those of honest, held-out images.

    Attributes:
      samples: samples → train.
      heldout: held-out → train.
      percentile: which percentile of the held-out distances is the limit.
    """

    samples: Nearest
    heldout: Nearest
    percentile: float = CLOSE_PERCENTILE

    @property
    def limit(self) -> float:
        """The distance under which a sample is close."""
        return float(np.percentile(self.heldout.distance, self.percentile))

    @property
    def close(self) -> Bool[np.ndarray, " n"]:
        """Which samples lie closer to a training image than `limit`, or on it."""
        return (self.samples.distance < self.limit) | (self.samples.distance == 0.0)

    def as_result(self) -> dict[str, object]:
        """What the result file says; the two lists have one entry per sample."""
        return {
            "distance": "root mean square difference of pixels in [0, 1]",
            "median_samples": float(np.median(self.samples.distance)),
            "median_heldout": float(np.median(self.heldout.distance)),
            "median_ratio_samples": float(np.median(self.samples.ratio)),
            "median_ratio_heldout": float(np.median(self.heldout.ratio)),
            "limit_percentile": self.percentile,
            "limit": self.limit,
            "fraction_close": float(np.mean(self.close)),
            "close": np.flatnonzero(self.close).tolist(),
            "identical": int(np.sum(self.samples.distance == 0.0)),
            "index": self.samples.index.tolist(),
            "distances": [round(float(value), 6) for value in self.samples.distance],
        }
