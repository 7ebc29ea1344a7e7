"""Stages Ib and Ic: features to pixels. Trained: the pixel decoder.

*pixels* learns from noisy features, so that it forgives what the latent loses; *finetune* goes on from there on the
features that the latent really gives back.

pixels:    image → encoder (x) → x + σ ε → pixel decoder → loss against the image
finetune:  image → encoder (x) → compressor → sample (z) → feature decoder (x̂) → pixel decoder → loss
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from fae_jax.data.pixels import side_by_side, to_pixels, to_uint8
from fae_jax.losses.pixel import check_losses, pixel_loss, pixel_terms, psnr
from fae_jax.model import Parts
from fae_jax.parallel.xla_flags import jit_once
from fae_jax.section import at_least, like, option
from fae_jax.stages.stage import Stage
from fae_jax.stages.training import train_stage
from fae_jax.tokenizers.fae import FAETokenizer
from fae_jax.training.optimizer import TrainingSection, best_params, make_optimizer
from fae_jax.training.state import Player, TrainState
from fae_jax.training.task import Preview

# (frozen parameters, batch, keys) → what the pixel decoder sees
Input = Callable[[Mapping[str, Any], Mapping[str, Any], Array], Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PixelsSection(TrainingSection):
    """Stage Ib."""

    steps: int = like(TrainingSection, "steps", 1_000_000)
    batch: int = like(TrainingSection, "batch", 512)
    weight_decay: float = like(TrainingSection, "weight_decay", 1e-4)
    ema: tuple[Any, ...] = like(TrainingSection, "ema", (0.999,))
    noise: float = option(
        0.4, "standard deviation of the noise added to the features (paper, for DINOv2)", at_least(0)
    )
    noise_relative: bool = option(False, "noise is in units of the features' root mean square, not absolute")
    losses: tuple[Any, ...] = option(
        (("l2", 1.0),), "(term, weight) or (term, weight, first step), …: l1, l2", check_losses
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuneSection(TrainingSection):
    """Stage Ic."""

    steps: int = like(TrainingSection, "steps", 100_000)
    batch: int = like(TrainingSection, "batch", 512)
    weight_decay: float = like(TrainingSection, "weight_decay", 1e-4)
    last_learning_rate: float = like(TrainingSection, "last_learning_rate", 1e-5)
    ema: tuple[Any, ...] = like(TrainingSection, "ema", (0.999,))
    losses: tuple[Any, ...] = like(PixelsSection, "losses", (("l2", 1.0),))


def noisy_features(
    tokenizer: FAETokenizer, sigma: float, frozen: Mapping[str, Any], batch: Mapping[str, Any], keys: Array
) -> Array:
    """x + σ ε, in the feature space."""
    features = tokenizer.space.enter(tokenizer.raw_features(frozen, batch))
    return features + sigma * jax.vmap(lambda key: jax.random.normal(key, features.shape[1:]))(keys)


def returned_features(
    tokenizer: FAETokenizer, frozen: Mapping[str, Any], batch: Mapping[str, Any], keys: Array
) -> Array:
    """x̂, in the feature space: features sent through the latent, sampled."""
    posterior = tokenizer.compress(frozen, tokenizer.raw_features(frozen, batch))
    decoded = tokenizer.feature_decoder.apply({"params": frozen["feature_decoder"]}, posterior.sample(keys))
    return jax.lax.stop_gradient(decoded)


def noise_level(tokenizer: FAETokenizer, section: Any) -> float:
    """σ: 0.4 for DINOv2 (paper), or relative to the features, σ RMS(x).

    "Scaled by the norm" for another encoder then is noise_relative with noise = 0.4 / RMS(x of DINOv2), whose root
    mean square follows from the mean and std in its `features/stage.json`.
    """
    return section.noise * (tokenizer.space.rms if section.noise_relative else 1.0)


def pixels_loss(
    tokenizer: FAETokenizer,
    terms: Any,
    make_input: Input,
    params: Any,
    frozen: Mapping[str, Any],
    batch: Mapping[str, Array],
    keys: Array,
    step: Array,
) -> tuple[Array, dict[str, Array]]:
    """The weighted terms between images and what is decoded, and PSNR."""
    images = to_pixels(batch["image"])
    decoded = tokenizer.pixel_decoder.apply({"params": params}, make_input(frozen, batch, keys))
    loss, values = pixel_loss(terms, decoded, images, step)
    return loss, {**values, "psnr": psnr(decoded, images)}


def _input(stage: str, parts: Parts) -> Input:
    if stage == "pixels":
        return functools.partial(noisy_features, parts.tokenizer, noise_level(parts.tokenizer, parts.config.pixels))
    return functools.partial(returned_features, parts.tokenizer)


def players(stage: str, parts: Parts) -> dict[str, Player]:
    """The pixel decoder."""
    tokenizer, section = parts.tokenizer, getattr(parts.config, stage)
    loss = functools.partial(pixels_loss, tokenizer, pixel_terms(section.losses), _input(stage, parts))
    init = functools.partial(tokenizer.init, "pixel_decoder")
    return {"pixel_decoder": Player(init=init, loss=loss, optimizer=make_optimizer(section))}


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
    preview=functools.partial(preview, "finetune"),
)
