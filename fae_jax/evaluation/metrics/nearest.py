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
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from fae_jax.evaluation.metrics import Batch
from fae_jax.evaluation.voting import search
from fae_jax.stages.figures import least_and_most, nearest_pairs

CLOSE_PERCENTILE = 1.0
CANDIDATES = 8  # that the search in float32 gives, to be measured again


@dataclasses.dataclass(frozen=True, kw_only=True)
class Neighbours:
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


def nearest(queries: UInt8[np.ndarray, "n y x c"], references: UInt8[np.ndarray, "m y x c"]) -> Neighbours:
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
    return Neighbours(index=index, distance=distance, second=second)


def _centred(pixels: np.ndarray) -> np.ndarray:
    """Around 0, where products of float32 lose least."""
    return pixels.astype(np.float32) - 127.5


class Nearest:
    """Distances of samples to the training images beside those of honest, held-out images. It keeps the images.

    Its score: `nearest` {distance (what it is), median_samples, median_heldout, median_ratio_samples,
    median_ratio_heldout, limit_percentile, limit, fraction_close, close (which), identical, index, distances (one for
    each sample)}.
    """

    compares = "splits"
    higher = ("median_samples", "median_ratio_samples")

    def __init__(self) -> None:
        self._images: list[np.ndarray] = []
        self._near: tuple[Nearest, Neighbours] | None = None

    @classmethod
    def build(cls, section: None, classes: Sequence[str]) -> Nearest:
        return cls()

    def update(self, batch: Batch) -> None:
        self._images.append(batch.images)
        self._near = None

    def merge(self, other: Nearest) -> None:
        self._images += other._images
        self._near = None

    def state(self) -> dict[str, np.ndarray]:
        return {"images": self.images} if self._images else {}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        self._images, self._near = list(state.values()), None

    @property
    def images(self) -> UInt8[np.ndarray, "n y x 3"]:
        """Raises ValueError: nothing was taken in."""
        if not self._images:
            raise ValueError("there are no images to look for the nearest one of")
        self._images = [np.concatenate(self._images)]
        return self._images[0]

    def to(self, train: Nearest) -> Neighbours:
        """The nearest training images, searched once: every set of samples asks them of the held-out images."""
        if self._near is None or self._near[0] is not train:
            self._near = train, nearest(self.images, train.images)
        return self._near[1]

    def result(self, real: Mapping[str, Nearest]) -> dict[str, Any]:
        samples, heldout = self.to(real["train"]), real["heldout"].to(real["train"])
        limit = float(np.percentile(heldout.distance, CLOSE_PERCENTILE))
        close = (samples.distance < limit) | (samples.distance == 0.0)
        return {
            "nearest": {
                "distance": "root mean square difference of pixels in [0, 1]",
                "median_samples": float(np.median(samples.distance)),
                "median_heldout": float(np.median(heldout.distance)),
                "median_ratio_samples": float(np.median(samples.ratio)),
                "median_ratio_heldout": float(np.median(heldout.ratio)),
                "limit_percentile": CLOSE_PERCENTILE,
                "limit": limit,
                "fraction_close": float(np.mean(close)),
                "close": np.flatnonzero(close).tolist(),
                "identical": int(np.sum(samples.distance == 0.0)),
                "index": samples.index.tolist(),
                "distances": [round(float(value), 6) for value in samples.distance],
            }
        }

    def figures(self, real: Mapping[str, Nearest], *, count: int = 24) -> dict[str, tuple[Image.Image, str]]:
        """Samples beside their nearest training images: the nearest of all, and some on the way to the farthest."""
        near = self.result(real)["nearest"]
        distances, index = np.asarray(near["distances"]), np.asarray(near["index"])
        close = np.zeros(len(index), bool)
        close[near["close"]] = True
        chosen = least_and_most(distances, count)
        figure = nearest_pairs(
            self.images[chosen], real["train"].images, index[chosen], distances[chosen], close[chosen]
        )
        caption = (
            f"{len(chosen)} of {len(index)} samples, each left of its nearest training image, with their distance: "
            f"first the nearest of all, then an even walk to the farthest. Closer than {near['limit']:.3f} is framed."
        )
        return {"nearest": (figure, caption)}
