"""What is minimised."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from fae_jax.kinds import names
from fae_jax.section import Plugs, are_numbers

PIXEL_LOSSES = {"l1": "fae_jax.losses.pixels", "l2": "fae_jax.losses.pixels"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PixelLossesSection:
    """Settings of the terms of `pixels.losses` and `finetune.losses`, a subsection for each that has any."""

    subsections: ClassVar[Plugs] = Plugs("pixel_losses", PIXEL_LOSSES)


def pixel_terms(value: Any) -> str | None:
    """A check: one or more (term, weight) or (term, weight, first step)."""
    known = names("pixel_losses", PIXEL_LOSSES)
    for term in value or ((),):
        named = isinstance(term, tuple) and len(term) in (2, 3) and term[0] in known
        if not named or not are_numbers(term[1:], len(term) - 1) or min(term[1:]) < 0:
            return (
                f"holds (term, weight) or (term, weight, first step), terms {', '.join(known)}; one term is written "
                '(("l2", 1.0),)'
            )
    return None
