"""FDr6: the mean of six Fréchet distance ratios, so that no single network decides.

    FDr6 = 1/6 Σ over networks of FD(samples, reference) / FD(validation images, reference)       (1)

A set as good as the validation images has 1. The networks are read as FD-loss reads them (Jiawei-Yang/FD-loss,
frechet_distance/repr_models.py), against the training images. For ImageNet at 256² the second distances are
published, `IMAGENET`; by them SiT-XL has 8.44 and RAE 3.26. On other data they are measured, of the held-out images:
both distances are biased by the number of images, and the second is of however many are held out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fae_jax.evaluation.metrics import Batch, by_prefix, compared_with, too_few, with_prefix
from fae_jax.extractors.moments import Running, frechet_distance
from fae_jax.section import are_numbers, option

TAPS = (
    "inception:pool_3",
    "fd_loss_convnext:pooled",
    "fd_loss_dinov2:cls",
    "fd_loss_mae:cls",
    "fd_loss_siglip2:pooled",
    "fd_loss_clip:cls",
)
IMAGENET = (1.68, 56.87, 14.19, 0.04, 0.60, 5.60)  # the 50,000 validation images at 256²


def _six(value: Any) -> str | None:
    fits = value == () or (are_numbers(value, len(TAPS)) and min(value) > 0)
    return None if fits else f"holds {len(TAPS)} numbers above 0, or nothing: of ImageNet {IMAGENET}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class FDr6Section:
    """What distances are divided by."""

    validation: tuple[Any, ...] = option(
        (), f"published distances of validation images, of ImageNet {IMAGENET}; empty = the held-out images'", _six
    )


class FDr6:
    """See the module.

    Its score: `fdr6` {value, against (train or reference), ratios, distances, of_validation (each by extractor and
    tap), samples, reference (counts), too_few (one is below twice the widest features)}.
    """

    higher = ()
    Section = FDr6Section

    def __init__(self, validation: Sequence[float] = ()) -> None:
        self._validation = validation
        self._running = {tap: Running() for tap in TAPS}

    @classmethod
    def build(cls, section: FDr6Section | None, classes: Sequence[str]) -> FDr6:
        return cls((section or FDr6Section()).validation)

    def update(self, batch: Batch) -> None:
        for tap, running in self._running.items():
            running.add(batch.tap(tap))

    def merge(self, other: FDr6) -> None:
        for tap, running in self._running.items():
            running.merge(other._running[tap])

    def state(self) -> dict[str, np.ndarray]:
        return with_prefix({tap: running.state() for tap, running in self._running.items()})

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        parts = by_prefix(state)
        for tap, running in self._running.items():
            running.restore(parts.get(tap, {}))

    def distances_to(self, other: FDr6) -> dict[str, float]:
        """The Fréchet distance by each tap.

        Raises:
          ValueError: there are no images on a side.
        """
        pairs = {tap: (running.moments, other._running[tap].moments) for tap, running in self._running.items()}
        if not all(first and second for first, second in pairs.values()):
            raise ValueError("fdr6 needs images on both sides, got none")
        return {tap: frechet_distance(first, second) for tap, (first, second) in pairs.items() if first and second}

    def result(self, real: Mapping[str, FDr6]) -> dict[str, Any]:
        against, reference = compared_with(real, "fdr6")
        heldout = real.get("heldout")
        if not self._validation and (heldout is None or against == "heldout"):
            raise ValueError(
                "fdr6 divides by the distances of held-out images from the reference, and there are none: give "
                f"published ones, --config.evaluation.metrics.fdr6.validation='{IMAGENET}' for ImageNet at 256×256"
            )
        distances = self.distances_to(reference)
        measured = heldout.distances_to(reference) if heldout and not self._validation else {}
        of_validation = measured or dict(zip(TAPS, map(float, self._validation), strict=True))
        if not all(of_validation.values()):
            raise ValueError("fdr6 divides by the distances of held-out images from the reference, which are 0 here")
        ratios = {tap: distance / of_validation[tap] for tap, distance in distances.items()}
        sides = {"samples": self, "reference": reference}
        moments = {side: [running.moments for running in metric._running.values()] for side, metric in sides.items()}
        counts = {side: of_side[0].count for side, of_side in moments.items() if of_side[0]}
        widest = max(len(each.mean) for each in moments["samples"] if each)
        few = too_few(f"a Fréchet distance in {widest} dimensions", counts, 2 * widest)
        known = {"ratios": ratios, "distances": distances, "of_validation": of_validation}
        return {
            "fdr6": {"value": float(np.mean(list(ratios.values()))), "against": against, **known, **counts}
            | {"too_few": few}
        }
