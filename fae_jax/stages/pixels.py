"""Stages Ib and Ic: features to pixels. Trained: the pixel decoder.

*pixels* learns from noisy features, so that it forgives what the latent loses; *finetune* goes on from there on the
features that the latent really gives back.

pixels:    image → encoder (x) → x + σ ε → pixel decoder → loss against the image
finetune:  image → encoder (x) → compressor → sample (z) → feature decoder (x̂) → pixel decoder → loss
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from fae_jax.losses import pixel_terms
from fae_jax.losses.pixels import pixel_error, psnr
from fae_jax.networks import init_params
from fae_jax.section import at_least, like, option
from fae_jax.stages.experiment import Experiment
from fae_jax.stages.images import side_by_side, to_pixels, to_uint8
from fae_jax.training.loop import Task
from fae_jax.training.optimizer import TrainingSection, make_optimizer
from fae_jax.training.state import Player, TrainState

# (frozen parameters, batch, keys) → what the pixel decoder is shown
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
        (("l2", 1.0),), "(term, weight) or (term, weight, first step), …: l1, l2", pixel_terms
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuneSection(TrainingSection):
    """Stage Ic."""

    steps: int = like(TrainingSection, "steps", 100_000)
    batch: int = like(TrainingSection, "batch", 512)
    ema: tuple[Any, ...] = like(TrainingSection, "ema", (0.999,))
    losses: tuple[Any, ...] = like(PixelsSection, "losses", (("l2", 1.0),))


def noisy_features(experiment: Experiment) -> Input:
    """x + σ ε, with σ = 0.4 for DINOv2 (paper), or relative to the features: σ RMS(x).

    "Scaled by the norm" for another encoder then is noise_relative with noise = 0.4 / RMS(x of DINOv2), whose root
    mean square is in its `features/statistics.json`.
    """
    section = experiment.config.pixels
    space = experiment.space
    sigma = section.noise * (space.rms if section.noise_relative else 1.0)

    def make(frozen: Mapping[str, Any], batch: Mapping[str, Any], keys: Array) -> Array:
        features = space.enter(experiment.features_of(frozen, batch))
        noise = jax.vmap(lambda key: jax.random.normal(key, features.shape[1:]))(keys)
        return features + sigma * noise

    return make


def returned_features(experiment: Experiment) -> Input:
    """x̂: features sent through the latent, sampled."""
    networks, space = experiment.networks, experiment.space

    def make(frozen: Mapping[str, Any], batch: Mapping[str, Any], keys: Array) -> Array:
        features = space.enter(experiment.features_of(frozen, batch))
        posterior = networks.compressor.apply({"params": frozen["compressor"]}, features)
        decoded = networks.feature_decoder.apply({"params": frozen["feature_decoder"]}, posterior.sample(keys))
        return jax.lax.stop_gradient(decoded)

    return make


def make_task(
    experiment: Experiment, stage: str, make_input: Input, frozen: Mapping[str, Any], start: Mapping[str, Any]
) -> Task:
    """The player `pixel_decoder`, from `start` (player → parameters) or from scratch."""
    section, networks = experiment.section(stage), experiment.networks
    decoder, tokens = networks.pixel_decoder, networks.grid[0] * networks.grid[1]

    def init(key: Array) -> dict[str, Any]:
        return init_params(decoder, key, jnp.zeros((1, tokens, networks.width)))

    def loss(params: Any, frozen: Mapping[str, Any], batch: Mapping[str, Array], keys: Array, step: Array):
        images = to_pixels(batch["image"])
        decoded = decoder.apply({"params": params}, make_input(frozen, batch, keys))
        weights = {name: weight * (step >= first[0]) if first else weight for name, weight, *first in section.losses}
        error = pixel_error(decoded, images, weights.get("l1", 0.0), weights.get("l2", 0.0))
        return error, {"psnr": psnr(decoded, images)}

    shown = experiment.preview_features()
    images = to_pixels(shown["image"])
    keys = jax.random.split(jax.random.key(0), len(images))
    paint = jax.jit(lambda params, frozen: decoder.apply({"params": params}, make_input(frozen, shown, keys)))

    def preview(state: TrainState) -> tuple[np.ndarray, str]:
        params = experiment.best_params(state, "pixel_decoder")
        decoded = to_uint8(paint(params, frozen))
        what = "their noisy features" if stage == "pixels" else "their latents"
        return side_by_side([to_uint8(images), decoded]), f"held-out images; painted from {what}"

    return Task(
        name=stage,
        players={"pixel_decoder": Player(init=init, loss=loss, optimizer=make_optimizer(section))},
        frozen=frozen,
        start=start,
        batches=experiment.feature_loader(section.batch, images=True).at,
        seed=experiment.seed(stage),
        section=section,
        preview=preview,
    )


def pixels_task(experiment: Experiment) -> Task:
    """Stage Ib."""
    return make_task(experiment, "pixels", noisy_features(experiment), experiment.frozen_for_features, {})


def finetune_task(experiment: Experiment) -> Task:
    """Stage Ic, from the parameters of Ib."""
    frozen = {**experiment.frozen_for_features, **experiment.load_params("features", "autoencoder")}
    start = {"pixel_decoder": experiment.load_params("pixels", "pixel_decoder")}
    return make_task(experiment, "finetune", returned_features(experiment), frozen, start)


def run_pixels(experiment: Experiment) -> None:
    """Trains stage Ib to its end."""
    experiment.train(pixels_task(experiment))


def run_finetune(experiment: Experiment) -> None:
    """Trains stage Ic to its end."""
    experiment.train(finetune_task(experiment))
