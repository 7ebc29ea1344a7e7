"""Stage Ia: the VAE on features. Trained: compressor and feature decoder. Frozen: the encoder.

picture → encoder (x) → compressor (μ, log σ²) → sample (z) → feature decoder (x̂) → VAE loss

With `data.features` the first arrow is gone: x comes from the feature store.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from fae_jax.losses.vae import cosine, feature_error, kl_divergence
from fae_jax.networks import init_params
from fae_jax.parallel.hosts import fetch
from fae_jax.stages.experiment import Experiment, side_by_side, to_pixels, to_uint8
from fae_jax.stages.feature_space import feature_colours
from fae_jax.training.loop import Task
from fae_jax.training.optimizer import make_optimizer
from fae_jax.training.state import Player, TrainState


def make_task(experiment: Experiment) -> Task:
    """The player `autoencoder`, with parameters {"compressor", "feature_decoder"}."""
    section, networks, space = experiment.config.features, experiment.networks, experiment.space
    tokens = networks.grid[0] * networks.grid[1]

    def init(key: Array) -> dict[str, Any]:
        keys = jax.random.split(key)
        features = jnp.zeros((1, tokens, networks.width))
        latents = jnp.zeros((1, tokens, networks.compressor.latent_width))
        return {
            "compressor": init_params(networks.compressor, keys[0], features),
            "feature_decoder": init_params(networks.feature_decoder, keys[1], latents),
        }

    def loss(params: Any, frozen: Mapping[str, Any], batch: Mapping[str, Array], keys: Array, step: Array):
        raw = experiment.features_of(frozen, batch)
        features = space.enter(raw)
        posterior = networks.compressor.apply({"params": params["compressor"]}, features)
        latents = posterior.sample(keys)
        decoded = networks.feature_decoder.apply({"params": params["feature_decoder"]}, latents)
        error = feature_error(decoded, features, space.variance)
        kl = kl_divergence(posterior.mean, posterior.log_variance)
        metrics = {
            "feature_error": error,
            "explained_variance": 1 - error,
            "feature_cosine": cosine(space.leave(decoded), raw),
            "kl_per_token": kl * posterior.mean.shape[-1],
            "posterior_std": jnp.mean(jnp.exp(0.5 * posterior.log_variance)),
        }
        return error + section.beta * kl, metrics

    shown = experiment.preview_features()
    images = to_pixels(shown["image"])

    @jax.jit
    def show(params: Any, frozen: Any) -> tuple[Array, Array]:
        raw = experiment.features_of(frozen, shown)
        mean = networks.compressor.apply({"params": params["compressor"]}, space.enter(raw)).mean
        decoded = networks.feature_decoder.apply({"params": params["feature_decoder"]}, mean)
        return raw, space.leave(decoded)

    def preview(state: TrainState) -> tuple[np.ndarray, str]:
        before, after = fetch(show(state.players["autoencoder"].params, experiment.frozen_for_features))
        cells = (images.shape[1] // networks.grid[0], images.shape[2] // networks.grid[1])
        maps = [
            colours.repeat(cells[0], 1).repeat(cells[1], 2)
            for colours in feature_colours(before, after, networks.grid)
        ]
        return side_by_side(
            [to_uint8(images), *maps]
        ), "held-out pictures; their features x; features after the latent x̂ (same colours)"

    return Task(
        name="features",
        players={"autoencoder": Player(init=init, loss=loss, optimizer=make_optimizer(section))},
        frozen=experiment.frozen_for_features,
        batches=experiment.feature_loader(section.batch, pictures=False).at,
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
