"""Losses of the pixel decoder, each a term with a weight and a start step; the table of kinds; presets.

    L = Σ_k w_k a_k · 1[step ≥ s_k] · term_k(ŷ, y)                                                          (1)
    a_k = min(‖∇_W R‖ / (‖∇_W term_k‖ + 10⁻⁶), 10⁴) for a term that is adaptive, 1 for the others           (2)

with R the sum of (1) over the terms that are not adaptive and W the decoder's last projection (VQGAN,
arXiv 2012.09841). a_k is measured on the batch of the step before, over all of it, so that microbatches do not change
it; it is 0 at step 0.

A kind is one file here, or an entry point in the group `fae_jax.pixel_losses` of another package: a function
term(decoded, images) → scalar, both (b, y, x, 3) in [−1, 1], a mean over images; or a class with a `Section` and
build(section, compute) → `Term`, where it needs frozen networks, another player, random numbers or a memory.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fae_jax.kinds import find, names
from fae_jax.nn.compute import from_step
from fae_jax.section import Plugs, are_numbers

PIXEL_LOSSES = {
    "l1": "fae_jax.losses.pixel.absolute:l1",
    "l2": "fae_jax.losses.pixel.squared:l2",
    "lpips": "fae_jax.losses.pixel.lpips:Perceptual",
    "convnext": "fae_jax.losses.pixel.convnext:Logits",
    "gan": "fae_jax.losses.pixel.gan:Adversarial",
}
HIGHEST = 1e4  # a_k


class Term:
    """A term that is more than a function of two images; called as one, with what else a step knows.

    Attributes:
      adaptive: whether it is weighed by equation (2).
      networks: frozen networks it looks through, by name: (`fae_jax.extractors.networks.Network`, its weights' file).
      player: what is trained against the decoder, or None.
    """

    adaptive: bool = False
    networks: Mapping[str, tuple[Any, str]] = {}
    player: Opponent | None = None

    def __call__(
        self, decoded: Float[Array, "b y x 3"], images: Float[Array, "b y x 3"], given: Mapping[str, Any], keys: Array
    ) -> Float[Array, ""]:
        """The term.

        Args:
          given: parameters of `networks` and of players by name, players' memories by name under "memory".
          keys: one for each image.
        """
        raise NotImplementedError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Opponent:
    """A player that a term brings; `fae_jax.training.state.Player` says what each is.

    Attributes:
      init: key → parameters.
      loss: (params, decoded, images, given, keys) → (scalar, metrics, measured).
      memory, remember: what it keeps from step to step.
      settings: fields of its optimizer that are not the decoder's.
      start: its first step; None for that of the term.
    """

    init: Callable[[Array], Any]
    loss: Callable[..., tuple[Array, dict[str, Array], Any]]
    memory: Callable[[], Any]
    remember: Callable[[Any, Any, Array], Any]
    settings: Mapping[str, Any]
    start: int | None = None


class Weighed(NamedTuple):
    """One entry of a field `losses`: w_k and s_k of equation (1)."""

    name: str
    term: Any
    weight: float
    start: int

    @property
    def adaptive(self) -> bool:
        return getattr(self.term, "adaptive", False)

    def value(
        self, decoded: Array, images: Array, given: Mapping[str, Any], keys: Array | None, step: Array
    ) -> Array:
        """The term without its weight; one that costs much is not computed before it is needed."""
        if not isinstance(self.term, Term):
            return self.term(decoded, images)

        def run(decoded: Array) -> Array:
            return self.term(decoded, images, given, keys)

        # one step early: then (2) is known at the first step that counts
        first = self.start - self.adaptive
        return run(decoded) if first <= 0 else from_step(step, first, run, decoded)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PixelLossesSection:
    """Settings of the terms of `pixels.losses` and `finetune.losses`, a subsection for each that has any."""

    subsections: ClassVar[Plugs] = Plugs("pixel_losses", PIXEL_LOSSES)


def check_losses(value: Any) -> str | None:
    """A check: one or more (term, weight) or (term, weight, first step), none twice."""
    known = names("pixel_losses", PIXEL_LOSSES)
    for term in value or ((),):
        named = isinstance(term, tuple) and len(term) in (2, 3) and term[0] in known
        if not named or not are_numbers(term[1:], len(term) - 1) or min(term[1:]) < 0:
            return (
                f"holds (term, weight) or (term, weight, first step), terms {', '.join(known)}; one term is written "
                '(("l2", 1.0),)'
            )
    chosen = [term[0] for term in value]
    return None if len({*chosen}) == len(chosen) else "holds each term once"


def pixel_terms(losses: Sequence[Sequence[Any]], sections: Any = None, compute: Any = None) -> tuple[Weighed, ...]:
    """Each entry (name, weight[, first step]) of a field `losses` with its term.

    Args:
      sections: `pixel_losses` of the configuration; None where no term has settings.
      compute: its section `compute`.

    Raises:
      ValueError: a term is unknown, or its settings do not go together.
    """
    made = []
    for name, weight, *start in losses:
        kind = find("pixel_losses", PIXEL_LOSSES, name)
        term = kind.build(getattr(sections, name, None), compute) if hasattr(kind, "build") else kind
        made.append(Weighed(name, term, weight, start[0] if start else 0))
    return tuple(made)


def opponents(terms: Sequence[Weighed]) -> dict[str, tuple[Opponent, int]]:
    """Players that terms bring, by the term's name, each with its first step."""
    brought = {each.name: (each.term.player, each.start) for each in terms if isinstance(each.term, Term)}
    return {
        name: (player, start if player.start is None else player.start)
        for name, (player, start) in brought.items()
        if player is not None
    }


def networks_of(terms: Sequence[Weighed]) -> dict[str, tuple[Any, str]]:
    """Frozen networks that terms look through, by name."""
    brought = [each.term.networks for each in terms if isinstance(each.term, Term)]
    return {name: network for networks in brought for name, network in networks.items()}


def pixel_loss(
    terms: Sequence[Weighed],
    decoded: Float[Array, "b y x 3"],
    images: Float[Array, "b y x 3"],
    step: Array,
    given: Mapping[str, Any] | None = None,
    keys: Array | None = None,
    weights: Mapping[str, Array] | None = None,
    project: Callable[[Array], Array] | None = None,
) -> tuple[Float[Array, ""], dict[str, Array], dict[str, Array]]:
    """Equation (1), each term by name where there are several, and what `adapt` makes the next (2) of.

    Args:
      given, keys: see `Term`.
      weights: a_k by name, of the terms that are adaptive.
      project: the gradient with respect to `decoded` → that with respect to W; needed where a term is adaptive.
    """
    values: dict[str, Array] = {}

    def of(chosen: Sequence[Weighed], decoded: Array) -> tuple[Array, dict[str, Array]]:
        total, seen = jnp.zeros(()), {}
        for each in chosen:
            seen[each.name] = each.value(decoded, images, given or {}, keys, step)
            total += (jnp.where(step >= each.start, each.weight, 0.0) if each.start else each.weight) * seen[
                each.name
            ]
        return total, seen

    plain, adaptive = ([each for each in terms if each.adaptive == kind] for kind in (False, True))
    if not adaptive:
        total, values = of(plain, decoded)
        return total, values if len(values) > 1 else {}, {}
    assert weights is not None and project is not None
    # Every term is differentiated at the images alone, once; the decoder then has one backward pass.
    fixed = jax.lax.stop_gradient(decoded)
    (total, values), slope = jax.value_and_grad(lambda y: of(plain, y), has_aux=True)(fixed)
    measured = {"": project(slope)}
    for each in adaptive:
        value, own = jax.value_and_grad(each.value)(fixed, images, given or {}, keys, step)
        factor = weights[each.name] * (jnp.where(step >= each.start, each.weight, 0.0) if each.start else each.weight)
        measured[each.name] = project(own)
        total, slope = total + factor * value, slope + factor * own
        values |= {each.name: value, f"{each.name}_weight": weights[each.name]}
    total = jax.lax.stop_gradient(total) + jnp.sum(jax.lax.stop_gradient(slope) * (decoded - fixed))
    return total, values, measured


def adapt(
    terms: Sequence[Weighed], weights: Mapping[str, Array], measured: Mapping[str, Array], step: Array
) -> dict[str, Array]:
    """Equation (2) of a step's gradients, by name; as before where a term was not computed."""
    rest = jnp.linalg.norm(measured[""]) if measured else jnp.zeros(())

    def one(each: Weighed) -> Array:
        factor = jnp.minimum(rest / (jnp.linalg.norm(measured[each.name]) + 1e-6), HIGHEST)
        return jnp.where(step >= each.start - 1, factor, weights[each.name])

    return {each.name: one(each) for each in terms if each.adaptive}


def psnr(decoded: Float[Array, "b y x 3"], images: Float[Array, "b y x 3"]) -> Float[Array, ""]:
    """Peak signal-to-noise ratio in dB, mean over images; the peak-to-peak range of pixels is 2."""
    error = jnp.mean((jnp.clip(decoded, -1, 1) - images) ** 2, axis=(1, 2, 3))
    return jnp.mean(10 * jnp.log10(4 / jnp.maximum(error, 1e-12)))
