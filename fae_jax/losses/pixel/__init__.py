"""Losses of the pixel decoder, each a term with a weight and a start step; the table of kinds.

    L = Σ_k w_k · 1[step ≥ s_k] · term_k(ŷ, y)                                                              (1)

A kind is one file here, or an entry point in the group `fae_jax.pixel_losses` of another package: a function
term(decoded, images) → scalar, both (b, y, x, 3) in [−1, 1], a mean over images.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from fae_jax.kinds import find, names
from fae_jax.section import Plugs, are_numbers

PIXEL_LOSSES = {
    "l1": "fae_jax.losses.pixel.absolute:l1",
    "l2": "fae_jax.losses.pixel.squared:l2",
}
Term = Callable[[Array, Array], Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PixelLossesSection:
    """Settings of the terms of `pixels.losses` and `finetune.losses`, a subsection for each that has any."""

    subsections: ClassVar[Plugs] = Plugs("pixel_losses", PIXEL_LOSSES)


def check_losses(value: Any) -> str | None:
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


def pixel_terms(losses: Sequence[Sequence[Any]]) -> tuple[tuple[str, Term, float, int], ...]:
    """(name, term, weight, start step) of each entry (name, weight[, start step]) of a field `losses`.

    Raises:
      ValueError: a term is unknown.
    """
    return tuple(
        (name, find("pixel_losses", PIXEL_LOSSES, name), weight, start[0] if start else 0)
        for name, weight, *start in losses
    )


def pixel_loss(
    terms: Sequence[tuple[str, Term, float, int]],
    decoded: Float[Array, "b y x 3"],
    images: Float[Array, "b y x 3"],
    step: Array,
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Equation (1), and each term by name where there are several."""
    total, values = jnp.zeros(()), {}
    for name, term, weight, start in terms:
        values[name] = term(decoded, images)
        total += (jnp.where(step >= start, weight, 0.0) if start else weight) * values[name]
    return total, values if len(values) > 1 else {}


def psnr(decoded: Float[Array, "b y x 3"], images: Float[Array, "b y x 3"]) -> Float[Array, ""]:
    """Peak signal-to-noise ratio in dB, mean over images; the peak-to-peak range of pixels is 2."""
    error = jnp.mean((jnp.clip(decoded, -1, 1) - images) ** 2, axis=(1, 2, 3))
    return jnp.mean(10 * jnp.log10(4 / jnp.maximum(error, 1e-12)))
