"""The nearest training image of a sample, and how near is too near.

The distance is in pixel space, pixels p in [0, 1]:

    d(a, b) = √ mean (p_a − p_b)²                                                      (1)

from 0 (the same image) to 1. How near an *honest* new image comes to the training set is measured on real
held-out images, so a sample is called close when it lies nearer to its training image than all but the nearest
hundredth of them do. One sample in a hundred is expected to be close; a generator that copies has far more. Beside
it stands the ratio of the nearest to the second nearest distance: near 0 for a copy of one image, near 1 for a
sample that merely lies in the thick of its class.

Training images are never held where their stream can be walked again (`Batch.again`): they pass by once more for each
set of images to look for, which keeps its best two distances and its nearest image. Of samples and held-out images at
most `HELD` bytes are looked for, a uniform choice by position as in `fae_jax.evaluation.metrics.rows`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from fae_jax.evaluation.metrics import Batch
from fae_jax.evaluation.metrics.rows import priority
from fae_jax.evaluation.voting import search
from fae_jax.stages.figures import least_and_most, nearest_pairs

CLOSE_PERCENTILE = 1.0
CANDIDATES = 8  # that the search in float32 gives, to be measured again
SLACK = 1e-3  # relative error that its squared distances are trusted to keep below
HELD = 2**28  # bytes of images held: 1,365 at 256×256
CHUNK = 2**28  # bytes of training images searched at once


@dataclasses.dataclass(kw_only=True)
class Neighbours:
    """For each of n images its nearest reference so far.

    Attributes:
      queries: the images, (n, y, x, c), uint8.
      index: position of the nearest reference, (n,).
      distance: equation (1), (n,), float64; infinite before the first reference.
      second: distance to the second nearest reference, (n,); infinite where there is only one.
      images: the nearest references themselves, as `queries`.
    """

    queries: UInt8[np.ndarray, "n y x c"]
    index: Int[np.ndarray, " n"]
    distance: Float[np.ndarray, " n"]
    second: Float[np.ndarray, " n"]
    images: UInt8[np.ndarray, "n y x c"]
    count: int = 0

    @classmethod
    def of(cls, queries: UInt8[np.ndarray, "n y x c"]) -> Neighbours:
        """Of no reference yet."""
        far = np.full(len(queries), np.inf)
        nowhere = np.full(len(queries), -1)
        return cls(queries=queries, index=nowhere, distance=far, second=far.copy(), images=np.zeros_like(queries))

    @property
    def ratio(self) -> Float[np.ndarray, " n"]:
        """Nearest over second nearest distance; 1 where both are 0 (the reference itself occurs twice)."""
        return np.where(self.second > 0, self.distance / np.where(self.second > 0, self.second, 1.0), 1.0)

    def look(self, references: UInt8[np.ndarray, "m y x c"]) -> None:
        """Takes in the next references, all compared.

        The search in float32 gives eight candidates; where they may be among the nearest two their distances are
        taken again by plain subtraction in float64, so that a copy is at exactly 0 and not at a rounding error. Of
        equally near references the first counts.

        Raises:
          ValueError: they are of another size.
        """
        if self.queries.shape[1:] != references.shape[1:]:
            raise ValueError(
                f"images of {self.queries.shape[1:]} have no distance to images of {references.shape[1:]}"
            )
        queries, others = (images.reshape(len(images), -1) for images in (self.queries, references))
        scores, candidates = search(queries, others, min(CANDIDATES, len(others)), _centred, penalty=0.5)
        lengths = np.array([float(row @ row) for row in map(_centred, queries)])
        near = (lengths - 2.0 * scores[:, 0]) / (255.0**2 * queries.shape[1])  # squared distances of the best
        worth = near <= self.second**2 + SLACK * (near + lengths / (255.0**2 * queries.shape[1]))
        for row in np.flatnonzero(worth).tolist():
            chosen = np.sort(candidates[row])
            difference = others[chosen].astype(np.float64) - queries[row]
            exact = np.sqrt(np.mean((difference / 255.0) ** 2, axis=1))
            first, *rest = np.argsort(exact, kind="stable").tolist()
            both = sorted([self.distance[row], self.second[row], exact[first], *exact[rest[:1]]])
            if exact[first] < self.distance[row]:
                self.index[row], self.images[row] = self.count + chosen[first], references[chosen[first]]
            self.distance[row], self.second[row] = both[:2]
        self.count += len(references)


def nearest(queries: UInt8[np.ndarray, "n y x c"], references: UInt8[np.ndarray, "m y x c"]) -> Neighbours:
    """The nearest of `references` to each of `queries` by equation (1), see `Neighbours.look`.

    Raises:
      ValueError: there are no references, or images of another size.
    """
    if not len(references):
        raise ValueError("there are no reference images to look for the nearest one in")
    made = Neighbours.of(queries)
    made.look(references)
    return made


def _centred(pixels: np.ndarray) -> np.ndarray:
    """Around 0, where products of float32 lose least."""
    return pixels.astype(np.float32) - 127.5


class Nearest:
    """Distances of samples to the training images beside those of honest, held-out images; see the module.

    Its score: `nearest` {distance (what it is), compared (numbers of samples, held-out and training images),
    median_samples, median_heldout, median_ratio_samples, median_ratio_heldout, limit_percentile, limit,
    fraction_close, close (which), identical, index, distances (one for each sample compared)}.
    """

    compares = "splits"
    higher = ("median_samples", "median_ratio_samples")

    def __init__(self) -> None:
        self._seen = 0
        self._parts: list[tuple[np.ndarray, np.ndarray]] = []  # positions, images
        self._again: Callable[[], Iterator[Batch]] | None = None
        self._near: tuple[Nearest, Neighbours] | None = None

    @classmethod
    def build(cls, section: None, classes: Sequence[str]) -> Nearest:
        return cls()

    def update(self, batch: Batch) -> None:
        self._again, self._near = batch.again, None
        if batch.again is None:
            self._hold(
                self._seen + np.arange(len(batch.images)) if batch.index is None else batch.index, batch.images
            )
        self._seen += len(batch.images)

    def _hold(self, index: np.ndarray, images: np.ndarray) -> None:
        self._near = None
        self._parts.append((index, images))
        most = max(1, HELD // images[0].nbytes)
        held = np.concatenate([index for index, _ in self._parts])
        if len(held) > most:
            bound = np.partition(priority(held), most - 1)[most - 1]
            stays = [(index, images, priority(index) <= bound) for index, images in self._parts]
            self._parts = [(index[stay], images[stay]) for index, images, stay in stays if stay.any()]

    def merge(self, other: Nearest) -> None:
        self._seen += other._seen
        self._again = self._again or other._again
        for part in other._parts:
            self._hold(*part)

    def state(self) -> dict[str, np.ndarray]:
        seen = {"seen": np.asarray(self._seen)}
        return seen | (dict(zip(("index", "images"), self._held(), strict=True)) if self._parts else {})

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        self._seen, self._near = int(state["seen"]), None
        self._parts = [(state["index"], state["images"])] if "images" in state else []

    def _held(self) -> tuple[np.ndarray, np.ndarray]:
        """Positions and images in order; those of a stream that can be walked again are gathered now.

        Raises:
          ValueError: nothing was taken in.
        """
        if self._again is not None:
            gathered = Nearest()
            for batch in self._again():
                gathered.update(dataclasses.replace(batch, again=None))
            return gathered._held()
        if not self._parts:
            raise ValueError("there are no images to look for the nearest one of")
        index, images = (np.concatenate(parts) for parts in zip(*self._parts, strict=True))
        self._parts = [(index, images)]
        order = np.argsort(index, kind="stable")
        return index[order], images[order]

    def _chunks(self) -> Iterator[UInt8[np.ndarray, "m y x 3"]]:
        """All images, in order, as references.

        Raises:
          ValueError: nothing was taken in, or more than is held.
        """
        if self._again is None:
            images = self._held()[1]
            if len(images) < self._seen:
                raise ValueError(
                    f"only {len(images)} of {self._seen} training images fit into memory, and their stream cannot be "
                    "walked again: give Batch.again"
                )
            yield images
            return
        waiting: list[np.ndarray] = []
        for batch in self._again():
            waiting.append(batch.images)
            if sum(images.nbytes for images in waiting) >= CHUNK:
                yield np.concatenate(waiting)
                waiting = []
        if waiting:
            yield np.concatenate(waiting)

    def to(self, train: Nearest) -> Neighbours:
        """The nearest training images, searched once: every set of samples asks them of the held-out images."""
        if self._near is None or self._near[0] is not train:
            near = Neighbours.of(self._held()[1])
            for references in train._chunks():
                near.look(references)
            self._near = train, near
        return self._near[1]

    def result(self, real: Mapping[str, Nearest]) -> dict[str, Any]:
        samples, heldout = self.to(real["train"]), real["heldout"].to(real["train"])
        limit = float(np.percentile(heldout.distance, CLOSE_PERCENTILE))
        close = (samples.distance < limit) | (samples.distance == 0.0)
        return {
            "nearest": {
                "distance": "root mean square difference of pixels in [0, 1]",
                "compared": {
                    "samples": len(samples.distance),
                    "heldout": len(heldout.distance),
                    "train": samples.count,
                },
                "median_samples": float(np.median(samples.distance)),
                "median_heldout": float(np.median(heldout.distance)),
                "median_ratio_samples": float(np.median(samples.ratio)),
                "median_ratio_heldout": float(np.median(heldout.ratio)),
                "limit_percentile": CLOSE_PERCENTILE,
                "limit": limit,
                "fraction_close": float(np.mean(close)),
                "close": self._held()[0][close].tolist(),
                "identical": int(np.sum(samples.distance == 0.0)),
                "index": samples.index.tolist(),
                "distances": [round(float(value), 6) for value in samples.distance],
            }
        }

    def figures(self, real: Mapping[str, Nearest], *, count: int = 24) -> dict[str, tuple[Image.Image, str]]:
        """Samples beside their nearest training images: the nearest of all, and some on the way to the farthest."""
        result, near = self.result(real)["nearest"], self.to(real["train"])
        positions, images = self._held()
        close = np.isin(positions, result["close"])
        chosen = least_and_most(near.distance, count)
        figure = nearest_pairs(
            images[chosen], near.images[chosen], np.arange(len(chosen)), near.distance[chosen], close[chosen]
        )
        caption = (
            f"{len(chosen)} of {len(positions)} samples, each left of its nearest training image, with their "
            "distance: first the nearest of all, then an even walk to the farthest. Closer than "
            f"{result['limit']:.3f} is framed."
        )
        return {"nearest": (figure, caption)}
