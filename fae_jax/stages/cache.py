"""The latent cache: every training image encoded once, so that the generator never runs the encoder.

image → encoder → compressor (μ, log σ²) → record, statistics

Every host encodes its own shards on its own devices, and waits for the others at the end alone.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array

from fae_jax.data.loader import Reading
from fae_jax.data.stores.disk_space import bytes_to_write, check_room
from fae_jax.data.stores.latent_writer import wait_for_hosts, write_cache
from fae_jax.errors import RunFailed
from fae_jax.files.progress import report_progress
from fae_jax.parallel.rules import constrained
from fae_jax.section import at_least, option
from fae_jax.stages.experiment import Experiment
from fae_jax.stages.images import to_pixels


@dataclasses.dataclass(frozen=True, kw_only=True)
class CacheSection:
    """The latent cache."""

    batch: int = option(1024, "images encoded at once, over all devices", at_least(1))
    shard_size: int = option(10_000, "images per file", at_least(1))
    path: str = option(
        "",
        "folder of latent caches, in a bucket only to read one; empty = latents/ in the workdir",
        operational=True,
    )


def make_posterior(experiment: Experiment) -> Callable[[Any, Any, Array], tuple[Array, Array]]:
    """(encoder's parameters, compressor's parameters, uint8 images) → mean and log-variance, compiled."""
    networks, space = experiment.networks, experiment.space

    def posterior(encoder: Any, compressor: Any, image: Array) -> tuple[Array, Array]:
        features = space.enter(experiment.encoder.features(encoder, to_pixels(image)))
        return tuple(networks.compressor.apply({"params": compressor}, features))

    return jax.jit(constrained(posterior, experiment.own_mesh))


def check_room_for(experiment: Experiment) -> str:
    """How many images, views and bytes the latent cache will take, and what is free.

    Raises:
      ValueError: the disk is too small, or it would be written to a bucket.
    """
    images, networks = len(experiment.source("train")), experiment.networks
    views = 2 if experiment.config.data.flip else 1
    shape = (networks.grid[0] * networks.grid[1], networks.compressor.latent_width)
    room = check_room(
        experiment.cache_directory,
        bytes_to_write(experiment.cache_directory, experiment.cache_identity, images, shape),
        f"the latent cache of {images:,} images",
        "name another folder with --config.cache.path",
    )
    return f"{images:,} images, {images * views:,} records of {shape[0]} × {shape[1]}, {room}"


def run(experiment: Experiment) -> None:
    """Writes the cache; shards an earlier run finished are kept."""
    config = experiment.config
    compressor = experiment.load_params("features", "autoencoder", mesh=experiment.own_mesh)["compressor"]
    encode = experiment.run_here(make_posterior(experiment), experiment.own_encoder, compressor)
    place = (experiment.cache_directory, experiment.cache_identity, experiment.source("train"))
    host, hosts, shard_size = jax.process_index(), jax.process_count(), config.cache.shard_size
    try:
        print(f"cache: {check_room_for(experiment)}", file=sys.stderr, flush=True)
        write_cache(
            *place,
            encode,
            batch=max(config.cache.batch // hosts, 1),
            shard_size=shard_size,
            host=host,
            hosts=hosts,
            reading=Reading(workers=config.data.workers, threads=config.data.threads, ahead=config.data.ahead),
            tolerate=config.data.tolerate,
            progress=report_progress("cache"),
        )
        wait_for_hosts(*place, shard_size=shard_size, hosts=hosts)
    except ValueError as error:
        raise RunFailed(f"cache: {error}") from error
