"""The latent cache: every training picture encoded once, so that the generator never runs the encoder.

picture → encoder → compressor (μ, log σ²) → record, statistics
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from fae_jax.data.latent_writer import write_cache
from fae_jax.data.loader import Reading
from fae_jax.parallel.mesh import put_batch
from fae_jax.parallel.rules import constrained
from fae_jax.stages.experiment import Experiment, to_pixels
from fae_jax.stages.feature_store import report_progress
from fae_jax.workdir import RunFailed


def make_posterior(experiment: Experiment) -> Callable[[Any, Any, Array], tuple[Array, Array]]:
    """(encoder's parameters, compressor's parameters, uint8 pictures) → mean and log-variance, compiled."""
    networks, space = experiment.networks, experiment.space

    def posterior(encoder: Any, compressor: Any, image: Array) -> tuple[Array, Array]:
        features = space.enter(experiment.encoder.features(encoder, to_pixels(image)))
        return tuple(networks.compressor.apply({"params": compressor}, features))

    return jax.jit(constrained(posterior, experiment.own_mesh))


def run(experiment: Experiment) -> None:
    """Writes the cache; shards an earlier run finished are kept."""
    config, posterior = experiment.config, make_posterior(experiment)
    # Every host encodes pictures of its own, so that none waits for another.
    mesh, encoder = experiment.own_mesh, experiment.own_encoder
    compressor = experiment.load_params("features", "autoencoder", mesh=mesh)["compressor"]

    def encode(images: np.ndarray) -> tuple[Array, Array]:
        return posterior(encoder, compressor, put_batch({"image": images}, mesh)["image"])

    try:
        write_cache(
            experiment.cache_directory,
            experiment.cache_identity,
            experiment.source("train"),
            encode,
            batch=config.cache.batch // jax.process_count(),
            shard_size=config.cache.shard_size,
            host=jax.process_index(),
            hosts=jax.process_count(),
            reading=Reading(workers=config.data.workers),
            progress=report_progress("cache"),
        )
    except ValueError as error:
        raise RunFailed(f"cache: {error}") from error
