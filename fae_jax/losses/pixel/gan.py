"""The adversarial term: a discriminator D that is trained to tell decoded images ŷ from images y.

| loss | of D, mean over logits | of the decoder |
|---|---|---|
| hinge | ½ [max(0, 1 − D(y)) + max(0, 1 + D(ŷ))] | −D(ŷ) |
| vanilla | ½ [softplus(−D(y)) + softplus(D(ŷ))] | −D(ŷ) |
| non_saturating | softplus(−D(y)) + softplus(D(ŷ)) | softplus(−D(ŷ)) |

Beside it D may pay for

    λ_lecam · mean [max(0, D(y) − α_ŷ)² + max(0, α_y − D(ŷ))²],   α ← d α + (1 − d) mean D               (1)
    ½ λ_r1 · mean ‖∇_y Σ D(y)‖²                                                                          (2)

LeCam (arXiv 2104.03310) and R1 (arXiv 1801.04406). The averages α are the memory of D, begin at 0, and (1) reads them
as the step before left them. Its mean is over logits, as in LeCam's own code; TiTok's and STARFlow's takes the mean
of the batch's logits before the square, which a batch in parts cannot.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fae_jax.losses.pixel import Opponent, Term
from fae_jax.losses.pixel.augment import NUMBERS, augment
from fae_jax.losses.pixel.heads import DinoDiscriminator
from fae_jax.losses.pixel.patch import GROUPS, PatchDiscriminator
from fae_jax.section import at_least, decays, numbers, one_of, option, share

LOSSES = ("hinge", "non_saturating", "vanilla")
REAL, FAKE, DECODING = 11, 12, 13  # what numbers are drawn for; the key itself draws the features' noise


def odd(value: Any) -> str | None:
    """A check: a window with a middle."""
    return None if value > 0 and value % 2 else "must be an odd number"


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdversarialSection:
    """The discriminator, its loss and its training."""

    network: str = option(
        "patch",
        "the discriminator: patch (PatchGAN), or dino (heads on a frozen DINO ViT-S/8)",
        one_of("patch", "dino"),
    )
    loss: str = option("hinge", "hinge, non_saturating or vanilla", one_of(*LOSSES))
    adaptive: bool = option(
        False, "weigh by the ratio of gradients at the decoder's last projection, beside the weight"
    )
    start: int = option(-1, "the discriminator's first step; -1 = that of the term", at_least(-1))
    lecam: float = option(0.0, "weight of LeCam's regularisation", at_least(0))
    lecam_decay: float = option(0.999, "decay of LeCam's averages of logits", share)
    r1: float = option(0.0, "weight of the gradient penalty on images (R1)", at_least(0))
    augment: bool = option(False, "the discriminator sees images moved and recoloured at random (DiffAug)")
    cutout: float = option(0.0, "augment: share of each side that a blank rectangle takes", share)
    rounded: bool = option(False, "the discriminator sees decoded images in 8 bits, as images are")
    learning_rate: float = option(
        1e-4,
        "highest learning rate of the discriminator's AdamW; schedule and warm-up are the decoder's",
        at_least(0),
    )
    betas: tuple[Any, ...] = option(
        (0.9, 0.999), "AdamW", numbers(2, "two numbers in [0, 1)", lambda *betas: all(0 <= b < 1 for b in betas))
    )
    weight_decay: float = option(0.0, "AdamW, on matrices only", at_least(0))
    ema: tuple[Any, ...] = option((), "decays of averages of the discriminator's parameters", decays)
    channels: int = option(128, "patch: channels of the first stage", at_least(GROUPS))
    stages: int = option(3, "patch: how often the grid is halved", at_least(1))
    size: int = option(9, "dino: tokens that a head's second convolution sees", odd)
    weights: str = option(
        "", "dino: a file of its weights; empty = what `fae weights pull dino_s8` brought", path=True
    )

    def check(self) -> None:
        if self.channels % GROUPS:
            raise ValueError(f"channels={self.channels} must be a multiple of {GROUPS}, the groups of its norms")


def discriminator_loss(kind: str, real: Float[Array, "b n"], fake: Float[Array, "b n"]) -> Float[Array, ""]:
    """The middle column of the table."""
    if kind == "hinge":
        return (jnp.mean(jax.nn.relu(1 - real)) + jnp.mean(jax.nn.relu(1 + fake))) / 2
    total = jnp.mean(jax.nn.softplus(-real)) + jnp.mean(jax.nn.softplus(fake))
    return total / 2 if kind == "vanilla" else total


def decoder_loss(kind: str, fake: Float[Array, "b n"]) -> Float[Array, ""]:
    """The last column of the table."""
    return jnp.mean(jax.nn.softplus(-fake)) if kind == "non_saturating" else -jnp.mean(fake)


def lecam(real: Float[Array, "b n"], fake: Float[Array, "b n"], memory: Mapping[str, Array]) -> Float[Array, ""]:
    """Equation (1) without its weight, α_y and α_ŷ being `memory["real"]` and `memory["fake"]`."""
    return jnp.mean(jax.nn.relu(real - memory["fake"]) ** 2) + jnp.mean(jax.nn.relu(memory["real"] - fake) ** 2)


def rounded(images: Float[Array, "b y x 3"]) -> Float[Array, "b y x 3"]:
    """Pixels of 8 bits: as images come from files."""
    return jnp.round((jnp.clip(images, -1, 1) + 1) * 127.5) / 127.5 - 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adversarial(Term):
    """See the module; its player is called as its kind, `gan`."""

    section: AdversarialSection
    network: Any
    Section = AdversarialSection

    @classmethod
    def build(cls, section: AdversarialSection, compute: Any) -> Adversarial:
        """See `fae_jax.losses.pixel`."""
        dtype = jnp.dtype(compute.dtype)
        if section.network == "patch":
            network: Any = PatchDiscriminator(channels=section.channels, stages=section.stages, dtype=dtype)
        else:
            within = {**compute.products, "scan": compute.scan, "remat": compute.remat}
            network = DinoDiscriminator(size=section.size, compute=within)
        return cls(section=section, network=network)

    @property
    def networks(self) -> Mapping[str, tuple[Any, str]]:  # type: ignore[override]
        dino = getattr(self.network, "dino", None)
        return {dino.name: (dino.network, self.section.weights)} if dino else {}

    @property
    def adaptive(self) -> bool:  # type: ignore[override]
        return self.section.adaptive

    @functools.cached_property
    def player(self) -> Opponent:  # type: ignore[override]
        own = self.section
        return Opponent(
            init=self.network.init,
            loss=self.discriminate,
            memory=lambda: {"real": jnp.zeros(()), "fake": jnp.zeros(()), "network": self.network.memory()},
            remember=self.remember,
            settings={name: getattr(own, name) for name in ("learning_rate", "betas", "weight_decay", "ema")},
            start=None if own.start < 0 else own.start,
        )

    def _logits(
        self, params: Any, images: Array, given: Mapping[str, Any], keys: Array, purpose: int
    ) -> tuple[Array, Any]:
        """D of images, augmented where the section says so by numbers that are drawn for a purpose."""
        if self.section.augment:
            drawn = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, purpose), (NUMBERS,)))(keys)
            images = augment(images, drawn, self.section.cutout)
        return self.network.logits(params, images, given, given["memory"]["gan"]["network"])

    def __call__(self, decoded: Array, images: Array, given: Mapping[str, Any], keys: Array) -> Array:
        """The decoder's loss."""
        return decoder_loss(self.section.loss, self._logits(given["gan"], decoded, given, keys, DECODING)[0])

    def discriminate(
        self, params: Any, decoded: Array, images: Array, given: Mapping[str, Any], keys: Array
    ) -> tuple[Array, dict[str, Array], Any]:
        """D's loss, what it reports, and what its memory is made of."""
        own, memory = self.section, given["memory"]["gan"]
        real, kept = self._logits(params, images, given, keys, REAL)
        fake, _ = self._logits(params, rounded(decoded) if own.rounded else decoded, given, keys, FAKE)
        loss = discriminator_loss(own.loss, real, fake)
        if own.lecam:
            loss += own.lecam * lecam(real, fake, memory)
        if own.r1:
            slope = jax.grad(lambda y: self._logits(params, y, given, keys, REAL)[0].sum())(images)
            loss += own.r1 / 2 * jnp.mean(jnp.sum(slope**2, axis=(1, 2, 3)))
        means = {"real": jnp.mean(real), "fake": jnp.mean(fake)}
        return loss, {f"logits_{name}": value for name, value in means.items()}, {**means, "network": kept}

    def remember(self, memory: Any, measured: Any, step: Array) -> Any:
        """α of (1), and what the network keeps."""
        decay = self.section.lecam_decay
        averages = {name: decay * memory[name] + (1 - decay) * measured[name] for name in ("real", "fake")}
        return {**averages, "network": measured["network"]}
