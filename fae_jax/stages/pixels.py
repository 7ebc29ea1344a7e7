"""Stages Ib and Ic: features to pixels. Trained: the pixel decoder.

*pixels* learns from noisy features, so that it forgives what the latent loses; *finetune* goes on from there on the
features that the latent really gives back.

pixels:    image → encoder (x) → x + σ ε → pixel decoder → loss against the image
finetune:  image → encoder (x) → compressor → sample (z) → feature decoder (x̂) → pixel decoder → loss

A term of the loss may bring a second player, a discriminator: it sees the images that the pixel decoder was scored
on, which are decoded once.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from fae_jax.data.pixels import side_by_side, to_pixels, to_uint8
from fae_jax.losses.pixel import (
    Opponent,
    Weighed,
    adapt,
    check_losses,
    networks_of,
    opponents,
    pixel_loss,
    pixel_terms,
    psnr,
)
from fae_jax.losses.pixel.presets import PRESETS, chosen_losses
from fae_jax.nn.embeddings import patchify
from fae_jax.parallel.xla_flags import jit_once
from fae_jax.parts import Parts
from fae_jax.section import above, at_least, like, one_of, option
from fae_jax.stages.stage import Stage
from fae_jax.stages.training import train_stage
from fae_jax.tokenizers.fae import FAETokenizer
from fae_jax.tokenizers.released import given
from fae_jax.training.optimizer import TrainingSection, best_params, make_optimizer
from fae_jax.training.state import Player, Report, TrainState
from fae_jax.training.task import Preview

# (frozen parameters, batch, keys) → what the pixel decoder sees
Input = Callable[[Mapping[str, Any], Mapping[str, Any], Array], Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PixelsSection(TrainingSection):
    """Stage Ib."""

    steps: int = option(1_000_000, "optimizer steps; 0 = none, with init_from", at_least(0))
    batch: int = like(TrainingSection, "batch", 512)
    weight_decay: float = like(TrainingSection, "weight_decay", 1e-4)
    ema: tuple[Any, ...] = like(TrainingSection, "ema", (0.999,))
    init_from: str = option(
        "", "a released AutoencoderRAE to start from: folder or hub name; empty = from scratch", path=True
    )
    noise: float = option(
        0.4, "standard deviation of the noise added to the features (paper, for DINOv2)", at_least(0)
    )
    noise_relative: bool = option(False, "noise is in units of the features' root mean square, not absolute")
    noise_reference: float = option(
        1.0, "noise_relative: root mean square of the features that noise is stated for", above(0)
    )
    noise_drawn: bool = option(False, "σ of each image is drawn between 0 and noise (RAE's τ)")
    losses: tuple[Any, ...] = option(
        (("l2", 1.0),),
        "(term, weight) or (term, weight, first step), … on pixels in [-1, 1]: l1, l2, lpips, convnext, gan",
        check_losses,
    )
    preset: str = option(
        "",
        f"a named list of losses with their settings, in the place of losses: {', '.join(PRESETS)}",
        one_of("", *PRESETS),
    )

    def check(self) -> None:
        super().check()
        check_starts(self)
        if not self.steps and not self.init_from:
            raise ValueError("steps=0 trains nothing: it goes with init_from alone")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuneSection(TrainingSection):
    """Stage Ic."""

    steps: int = like(TrainingSection, "steps", 100_000)
    batch: int = like(TrainingSection, "batch", 512)
    weight_decay: float = like(TrainingSection, "weight_decay", 1e-4)
    last_learning_rate: float = like(TrainingSection, "last_learning_rate", 1e-5)
    ema: tuple[Any, ...] = like(TrainingSection, "ema", (0.999,))
    posterior: str = option("sample", "what is decoded of a latent: a sample, or its mean", one_of("sample", "mean"))
    losses: tuple[Any, ...] = like(PixelsSection, "losses", (("l2", 1.0),))
    preset: str = like(PixelsSection, "preset", "")

    def check(self) -> None:
        super().check()
        check_starts(self)


def check_starts(section: Any) -> None:
    """Refuses a term that would begin when the stage is over, and losses beside a preset.

    Raises:
      ValueError: it names the term and both steps, or both fields.
    """
    if section.preset and section.losses != (("l2", 1.0),):
        raise ValueError(f"losses={section.losses!r} are given beside preset={section.preset!r}; leave one of them")
    for name, _, *start in section.losses:
        if start and start[0] >= section.steps:
            raise ValueError(
                f"losses={section.losses!r}: {name!r} begins at step {start[0]}, and there are steps={section.steps}"
            )


def noisy_features(
    tokenizer: FAETokenizer,
    sigma: float,
    drawn: bool,
    frozen: Mapping[str, Any],
    batch: Mapping[str, Any],
    keys: Array,
) -> Array:
    """x + σ ε, in the feature space; where `drawn`, x + u σ ε with u of each image uniform in [0, 1)."""
    features = tokenizer.space.enter(tokenizer.raw_features(frozen, batch))
    noise = sigma * jax.vmap(lambda key: jax.random.normal(key, features.shape[1:]))(keys)
    if drawn:
        noise *= jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, 1)))(keys)[:, None, None]
    return features + noise


def returned_features(
    tokenizer: FAETokenizer,
    posterior: str,
    frozen: Mapping[str, Any],
    batch: Mapping[str, Any],
    keys: Array,
) -> Array:
    """x̂, in the feature space: features sent through the latent, a "sample" or the "mean" of their posterior."""
    latents = tokenizer.compress(frozen, tokenizer.raw_features(frozen, batch))
    z = latents.mean if posterior == "mean" else latents.sample(keys)
    decoded = tokenizer.feature_decoder.apply({"params": frozen["feature_decoder"]}, z)
    return jax.lax.stop_gradient(decoded)


def noise_level(tokenizer: FAETokenizer, section: Any) -> float:
    """σ: 0.4 for DINOv2 (paper), or relative to the features, σ RMS(x) / r with r the `noise_reference`.

    The paper's "scaled by the norm" for another encoder is noise = 0.4 with r = RMS(x of DINOv2-g), which follows
    from the mean and std that its `features/stage.json` holds.
    """
    return section.noise * (tokenizer.space.rms / section.noise_reference if section.noise_relative else 1.0)


def pixels_loss(
    tokenizer: FAETokenizer,
    terms: Sequence[Weighed],
    make_input: Input,
    params: Any,
    frozen: Mapping[str, Any],
    batch: Mapping[str, Array],
    keys: Array,
    step: Array,
) -> tuple[Array, Report]:
    """The weighted terms between images and what is decoded, and PSNR; the images go on to a discriminator."""
    images, features = to_pixels(batch["image"]), make_input(frozen, batch, keys)
    adaptive = any(each.adaptive for each in terms)
    made = tokenizer.pixel_decoder.apply({"params": params}, features, **({"inside": True} if adaptive else {}))
    decoded, inside = made if adaptive else (made, None)

    def project(slope: Array) -> Array:
        """∇ of the last projection's kernel, from that of its pixels."""
        patches = patchify(slope, tokenizer.pixel_decoder.patch)
        return jnp.einsum("bnd,bnp->dp", jax.lax.stop_gradient(inside), patches, precision="highest")

    weights = frozen["memory"]["pixel_decoder"] if adaptive else {}
    loss, values, measured = pixel_loss(terms, decoded, images, step, frozen, keys, weights, project)
    handed = {"decoded": jax.lax.stop_gradient(decoded)} if opponents(terms) else {}
    return loss, Report({**values, "psnr": psnr(decoded, images)}, measured, handed)


def _input(stage: str, parts: Parts) -> Input:
    section = getattr(parts.config, stage)
    if stage == "pixels":
        sigma = noise_level(parts.tokenizer, section)
        return functools.partial(noisy_features, parts.tokenizer, sigma, section.noise_drawn)
    return functools.partial(returned_features, parts.tokenizer, section.posterior)


def terms_of(stage: str, config: Any) -> tuple[Weighed, ...]:
    """The terms of a stage's loss."""
    return pixel_terms(*chosen_losses(getattr(config, stage), config.pixel_losses), config.compute)


def networks(stage: str, config: Any) -> dict[str, tuple[Any, str]]:
    """Frozen networks that the terms look through."""
    return networks_of(terms_of(stage, config))


def check(stage: str, config: Any) -> None:
    """Refuses losses that cannot be computed here.

    Raises:
      ValueError: a discriminator would begin when the stage is over.
      FileNotFoundError: weights of a network are missing; says which command brings them.
    """
    section = getattr(config, stage)
    for name, (_, start) in opponents(terms_of(stage, config)).items():
        if start >= section.steps:
            raise ValueError(
                f"field pixel_losses.{name}.start={start} is beyond the end of stage {stage}, {stage}.steps="
                f"{section.steps}"
            )
    missing = []
    for network, weights in networks(stage, config).values():
        try:
            network.check(weights)
        except FileNotFoundError as error:
            missing.append(str(error))
    if missing:
        without = f'{stage}.losses=(("l1", 1.0),){f" and no {stage}.preset" if section.preset else ""} trains without'
        raise FileNotFoundError(f"stage {stage}: {'; '.join(missing)}; {without}")


def players(stage: str, parts: Parts) -> dict[str, Player]:
    """The pixel decoder, and the discriminators that its losses bring."""
    tokenizer, section = parts.tokenizer, getattr(parts.config, stage)
    terms = terms_of(stage, parts.config)
    decoder = Player(
        init=functools.partial(tokenizer.init, "pixel_decoder"),
        loss=functools.partial(pixels_loss, tokenizer, terms, _input(stage, parts)),
        optimizer=make_optimizer(section),
        memory=lambda: {each.name: jnp.zeros(()) for each in terms if each.adaptive},
        remember=functools.partial(adapt, terms),
    )
    made = {"pixel_decoder": decoder}
    for name, (opponent, start) in opponents(terms).items():
        own = dataclasses.replace(section, **opponent.settings, steps=section.steps - start)
        made[name] = Player(
            init=opponent.init,
            loss=functools.partial(opponent_loss, opponent),
            optimizer=make_optimizer(own),
            start=start,
            memory=opponent.memory,
            remember=opponent.remember,
        )
    return made


def opponent_loss(
    opponent: Opponent,
    params: Any,
    frozen: Mapping[str, Any],
    batch: Mapping[str, Array],
    keys: Array,
    step: Array,
) -> tuple[Array, Report]:
    """A discriminator's loss on the images that were decoded in this step."""
    loss, metrics, measured = opponent.loss(params, batch["decoded"], to_pixels(batch["image"]), frozen, keys)
    return loss, Report(metrics, measured)


def preview(stage: str, parts: Parts, frozen: Mapping[str, Any], batch: Mapping[str, Any]) -> Preview:
    """Images over what is decoded from their features."""
    images, make_input = to_pixels(batch["image"]), _input(stage, parts)
    keys = jax.random.split(jax.random.key(0), len(images))
    draw = jit_once(
        lambda params, frozen: parts.tokenizer.pixel_decoder.apply(
            {"params": params}, make_input(frozen, batch, keys)
        )
    )

    def paint(state: TrainState) -> tuple[np.ndarray, str]:
        decoded = to_uint8(draw(best_params(state, "pixel_decoder"), frozen))
        what = "their noisy features" if stage == "pixels" else "their latents"
        return side_by_side([to_uint8(images), decoded]), f"held-out images; painted from {what}"

    return paint


PIXELS = Stage(
    name="pixels",
    run=train_stage,
    needs=("encoder",),
    players=functools.partial(players, "pixels"),
    frozen=("encoder",),
    reads="features and images",
    networks=functools.partial(networks, "pixels"),
    check=functools.partial(check, "pixels"),
    given=given,
    preview=functools.partial(preview, "pixels"),
)
FINETUNE = Stage(
    name="finetune",
    run=train_stage,
    needs=("features", "pixels"),
    players=functools.partial(players, "finetune"),
    frozen=("encoder", "compressor", "feature_decoder"),
    reads="features and images",
    start={"pixel_decoder": "pixel_decoder"},
    networks=functools.partial(networks, "finetune"),
    check=functools.partial(check, "finetune"),
    preview=functools.partial(preview, "finetune"),
)
