"""Fréchet distances in the features of any extractor, `evaluation.metrics.frechet.extractors`.

Samples ↔ held-out images beside training ↔ held-out images. The second is what a perfect generator would reach, and
the number to compare with: of as many training images as there are samples, since the distance is biased by the
number of images on either side, and where that is near the number of dimensions says little else. Where there is a
reference, samples ↔ reference alone.

A distance is named by its extractor and tap: with another input size or tap the same network gives other numbers. The
ImageNet-256 validation set has an FD-DINOv2 of 21.04 by dgm-eval (ViT-L/14 at 224) and of 14.19 at 256.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fae_jax.evaluation.metrics import Batch, by_prefix, too_few, with_prefix
from fae_jax.extractors.moments import Running, frechet_distance
from fae_jax.section import option


def _names(value: Any) -> str | None:
    fits = value and all(isinstance(name, str) and name.count(":") <= 1 for name in value)
    return None if fits else 'holds extractors and taps, such as ("encoder", "dinov2_l14:cls")'


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrechetSection:
    """Where distances are measured."""

    extractors: tuple[Any, ...] = option(
        ("encoder",), "EXTRACTOR:TAP, or EXTRACTOR where it has one tap; encoder: the experiment's own", _names
    )


class Frechet:
    """See the module.

    Its scores, for each extractor: `frechet` for the experiment's own, else `frechet_EXTRACTOR_TAP` {space,
    dimensions, samples, train, heldout (counts), too_few (one is below twice the dimensions), samples_to_heldout,
    train_to_heldout}; against a reference {space, dimensions, samples, reference, too_few, samples_to_reference}.
    """

    higher = ()
    Section = FrechetSection

    def __init__(self, extractors: Sequence[str] = FrechetSection().extractors) -> None:
        self._every = {name: Running() for name in extractors}
        self._among = {name: Running() for name in extractors}

    @classmethod
    def build(cls, section: FrechetSection | None, classes: Sequence[str]) -> Frechet:
        return cls((section or FrechetSection()).extractors)

    def update(self, batch: Batch) -> None:
        among = slice(None) if batch.among is None else batch.among
        for name, running in self._every.items():
            features = batch.tap(name)
            running.add(features)
            self._among[name].add(features[among])

    def merge(self, other: Frechet) -> None:
        for name, running in self._every.items():
            running.merge(other._every[name])
            self._among[name].merge(other._among[name])

    def state(self) -> dict[str, np.ndarray]:
        every = {f"every/{name}": running.state() for name, running in self._every.items()}
        return with_prefix({**every, **{f"among/{name}": running.state() for name, running in self._among.items()}})

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        parts = by_prefix(state)
        for name, running in self._every.items():
            running.restore(parts.get(f"every/{name}", {}))
            self._among[name].restore(parts.get(f"among/{name}", {}))

    def result(self, real: Mapping[str, Frechet]) -> dict[str, Any]:
        return {
            "frechet" if name == "encoder" else f"frechet_{name.replace(':', '_')}": self._distances(name, real)
            for name in self._every
        }

    def _distances(self, name: str, real: Mapping[str, Frechet]) -> dict[str, Any]:
        moments = {"samples": self._every[name].moments}
        if "reference" in real:
            moments["reference"] = real["reference"]._every[name].moments
        else:
            train, heldout = real.get("train"), real.get("heldout")
            moments["train"] = train._among[name].moments if train else None
            moments["heldout"] = heldout._every[name].moments if heldout else None
        known = {side: of_side for side, of_side in moments.items() if of_side}
        if len(known) < len(moments):
            raise ValueError("the Fréchet distance needs images on both sides, got none")
        counts = {side: of_side.count for side, of_side in known.items()}
        dimensions = len(known["samples"].mean)
        *sides, other = known
        return {
            "space": "the encoder's patch features, averaged over the patches" if name == "encoder" else name,
            "dimensions": dimensions,
            **counts,
            "too_few": too_few(f"a Fréchet distance in {dimensions} dimensions", counts, 2 * dimensions),
            **{f"{side}_to_{other}": frechet_distance(known[side], known[other]) for side in sides},
        }
