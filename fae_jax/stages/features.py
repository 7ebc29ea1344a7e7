"""Stage Ia: the VAE on features. Trained: compressor and feature decoder. Frozen: the encoder.

image → encoder (x) → compressor (μ, log σ²) → sample (z) → feature decoder (x̂) → VAE loss

Options, all off by default: noise on what the compressor sees (x + σ ε), a noise level per image on the latent
(z + u τ ε with one u ~ N(0, 1) an image; our reading of GAE's dynamic noise, arXiv 2603.10365), and the shaping
losses of `fae_jax.losses.shaping`.

With `data.features` the first arrow is gone: x comes from the feature store.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from fae_jax.losses.shaping import SemanticHead, continuity_loss, semantics_loss, structure_loss
from fae_jax.losses.vae import cosine, feature_error, inactive_channels, kl_divergence, reduced
from fae_jax.networks import Networks, init_params
from fae_jax.parallel.hosts import fetch
from fae_jax.section import at_least, like, one_of, option
from fae_jax.stages.experiment import Experiment
from fae_jax.stages.feature_space import FeatureSpace, feature_colours
from fae_jax.stages.images import side_by_side, to_pixels, to_uint8
from fae_jax.training.loop import Task
from fae_jax.training.optimizer import TrainingSection, make_optimizer
from fae_jax.training.state import Player, TrainState


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeaturesSection(TrainingSection):
    """Stage Ia."""

    steps: int = like(TrainingSection, "steps", 1_000_000)
    batch: int = like(TrainingSection, "batch", 1024)
    reduction: str = option(
        "mean", "error and KL: mean per element, or sum over those of an image (as printed)", one_of("mean", "sum")
    )
    beta: float = option(5e-4, "weight of the KL divergence, for posteriors that have one", at_least(0))
    feature_noise: float = option(0.0, "standard deviation of noise on the features the compressor sees", at_least(0))
    latent_noise: float = option(
        0.0, "spread of a noise level drawn for each image and added to its latent (GAE)", at_least(0)
    )
    structure_weight: float = option(
        0.0, "weight of the Gram matrices' difference (PAE; losses/shaping.py, equation 1)", at_least(0)
    )
    continuity_weight: float = option(
        0.0, "weight of the change under growing perturbations (PAE, equation 2)", at_least(0)
    )
    continuity_reach: float = option(0.3, "standard deviation of the largest perturbation", at_least(0))
    continuity_levels: int = option(3, "perturbations; each is one more pass of the feature decoder", at_least(1))
    semantics_weight: float = option(
        0.0, "weight of what a linear layer cannot read off the latent (PAE, equation 3)", at_least(0)
    )


BARS = 24  # rows of pixels in a preview's bars


def noisy(values: Array, keys: Array, spread: float | Array) -> Array:
    """Normal noise of that standard deviation on (b, n, c), with one key per image; a spread of 0 adds nothing."""
    if isinstance(spread, float) and spread == 0:
        return values
    return values + spread * jax.vmap(lambda key: jax.random.normal(key, values.shape[1:]))(keys)


def noise_levels(keys: Array, spread: float) -> Array | float:
    """A level for each image, spread · N(0, 1), (b, 1, 1): the decoder sees latents of all levels at once."""
    return spread * jax.vmap(jax.random.normal)(keys)[:, None, None] if spread else 0.0


def autoencoder_loss(
    networks: Networks, space: FeatureSpace, section: FeaturesSection, params: Any, raw: Array, keys: Array
) -> tuple[Array, dict[str, Array]]:
    """The loss of raw features (b, n, d), and what is watched; each further term only where its weight is not 0."""
    features = space.enter(raw)

    def own(purpose: int) -> Array:
        return jax.vmap(lambda key: jax.random.fold_in(key, purpose))(keys)

    def decode(latents: Array) -> Array:
        return networks.feature_decoder.apply({"params": params["feature_decoder"]}, latents)

    seen = noisy(features, own(1), section.feature_noise)
    posterior = networks.compressor.apply({"params": params["compressor"]}, seen)
    latents = noisy(posterior.sample(keys), own(2), noise_levels(own(3), section.latent_noise))
    decoded = decode(latents)
    error = feature_error(decoded, features, space.variance)
    spread = jnp.mean(jnp.exp(0.5 * posterior.log_variance), axis=(0, 1))
    metrics = {
        "feature_error": error,
        "explained_variance": 1 - error,
        "feature_cosine": cosine(space.leave(decoded), raw),
        "posterior_std": jnp.mean(spread),
        "posterior_std_min": jnp.min(spread),
        "posterior_std_max": jnp.max(spread),
        "inactive_channels": inactive_channels(posterior.mean),
    }
    kl = jnp.zeros(())
    if networks.has_divergence:
        kl = kl_divergence(posterior.mean, posterior.log_variance)
        metrics["kl_per_token"] = kl * posterior.mean.shape[-1]
    sizes = (features.shape[1], features.shape[2], posterior.mean.shape[2])
    total = reduced(error, kl, beta=section.beta, reduction=section.reduction, sizes=sizes)
    shaping: dict[str, Callable[[], Array]] = {
        "structure": lambda: structure_loss(posterior.mean, features),
        "continuity": lambda: continuity_loss(
            decode,
            latents,
            noisy(jnp.zeros_like(latents), own(4), 1.0),
            reach=section.continuity_reach,
            levels=section.continuity_levels,
            variance=space.variance,
        ),
        "semantics": lambda: semantics_loss(
            SemanticHead(networks.width).apply({"params": params["semantic_head"]}, posterior.mean), features
        ),
    }
    for name, term in shaping.items():
        weight = getattr(section, f"{name}_weight")
        if weight:
            metrics[name] = term()
            total += weight * metrics[name]
    return total, metrics


def channel_bars(values: np.ndarray, width: int, rows: int = BARS) -> np.ndarray:
    """A bar for each channel's value, 1 or the largest at full height: uint8 (rows, width, 3)."""
    heights = np.asarray(values, np.float64) / max(1.0, float(np.max(values)))
    column = np.minimum(np.arange(width) * len(heights) // width, len(heights) - 1)
    filled = (rows - np.arange(rows))[:, None] <= np.round(rows * heights[column])[None]
    return np.where(filled[..., None], np.array([240, 180, 60], np.uint8), np.array([24, 24, 32], np.uint8))


def make_task(experiment: Experiment) -> Task:
    """The player `autoencoder`, with parameters {"compressor", "feature_decoder"}, and {"semantic_head"} where
    semantics are asked for."""
    section, networks, space = experiment.config.features, experiment.networks, experiment.space
    tokens = networks.grid[0] * networks.grid[1]

    def init(key: Array) -> dict[str, Any]:
        keys = jax.random.split(key)
        features = jnp.zeros((1, tokens, networks.width))
        latents = jnp.zeros((1, tokens, networks.compressor.latent_width))
        params = {
            "compressor": init_params(networks.compressor, keys[0], features),
            "feature_decoder": init_params(networks.feature_decoder, keys[1], latents),
        }
        if section.semantics_weight:
            params["semantic_head"] = init_params(SemanticHead(networks.width), jax.random.fold_in(key, 2), latents)
        return params

    def loss(params: Any, frozen: Mapping[str, Any], batch: Mapping[str, Array], keys: Array, step: Array):
        return autoencoder_loss(networks, space, section, params, experiment.features_of(frozen, batch), keys)

    shown = experiment.preview_features()
    images = to_pixels(shown["image"])

    @jax.jit
    def show(params: Any, frozen: Any) -> tuple[Array, Array, Array]:
        raw = experiment.features_of(frozen, shown)
        posterior = networks.compressor.apply({"params": params["compressor"]}, space.enter(raw))
        decoded = networks.feature_decoder.apply({"params": params["feature_decoder"]}, posterior.mean)
        return raw, space.leave(decoded), jnp.exp(0.5 * posterior.log_variance).mean((0, 1))

    def preview(state: TrainState) -> tuple[np.ndarray, str]:
        before, after, spread = fetch(show(state.players["autoencoder"].params, experiment.frozen_for_features))
        cells = (images.shape[1] // networks.grid[0], images.shape[2] // networks.grid[1])
        maps = [
            colours.repeat(cells[0], 1).repeat(cells[1], 2)
            for colours in feature_colours(before, after, networks.grid)
        ]
        sheet = side_by_side([to_uint8(images), *maps])
        bars = channel_bars(spread, sheet.shape[1])
        what = "held-out images; their features x; features after the latent x̂ (same colours)"
        return np.concatenate([sheet, bars]), f"{what}; bars: standard deviation of each latent channel's posterior"

    return Task(
        name="features",
        players={"autoencoder": Player(init=init, loss=loss, optimizer=make_optimizer(section))},
        frozen=experiment.frozen_for_features,
        batches=experiment.feature_loader(section.batch, images=False).at,
        seed=experiment.seed("features"),
        section=section,
        preview=preview,
    )


def run(experiment: Experiment) -> None:
    """Trains the stage to its end; where nothing is compressed, only the features' statistics are taken."""
    if not experiment.has_autoencoder:
        _ = experiment.space
        return
    experiment.train(make_task(experiment))
