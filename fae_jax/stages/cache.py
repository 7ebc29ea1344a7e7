"""The latent cache: every training image encoded once, so that the generator never runs the tokenizer.

image → tokenizer (μ, log σ²) → record, statistics

Every host encodes its own shards on its own devices, and waits for the others at the end alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array

from fae_jax.data.pixels import to_pixels
from fae_jax.data.stores.disk_space import bytes_to_write, check_room
from fae_jax.data.stores.latent_writer import wait_for_hosts, write_cache
from fae_jax.data.stores.latents import CacheIdentity, read_header
from fae_jax.errors import RunFailed
from fae_jax.files import storage
from fae_jax.files.progress import report_progress, say
from fae_jax.parallel.hosts import is_first
from fae_jax.parallel.rules import constrained
from fae_jax.parts import Parts
from fae_jax.section import at_least, option
from fae_jax.stages.experiment import Experiment
from fae_jax.stages.images import hosts
from fae_jax.stages.latents import FOLDER, latents_directory
from fae_jax.stages.stage import Record, Stage, check_lineage, read_record, write_record


@dataclasses.dataclass(frozen=True, kw_only=True)
class CacheSection:
    """The latent cache."""

    batch: int = option(1024, "images encoded at once, over all devices", at_least(1))
    shard_size: int = option(10_000, "images per file", at_least(1))
    path: str = option(
        "",
        "folder of latent caches, here or in a bucket; empty = latents/ in the workdir",
        operational=True,
        path=True,
    )


def make_posterior(parts: Parts, mesh: jax.sharding.Mesh) -> Callable[[Any, Array], tuple[Array, Array]]:
    """(the tokenizer's parameters, uint8 images) → mean and log-variance, compiled for `mesh`."""

    def posterior(params: Any, image: Array) -> tuple[Array, Array]:
        return tuple(parts.tokenizer.encode(params, to_pixels(image)))

    return jax.jit(constrained(posterior, mesh))


def cache_place(experiment: Experiment, params: Any) -> tuple[str, CacheIdentity]:
    """The cache's folder and what it must be, for the tokenizer's parameters."""
    data = experiment.config.data
    identity = CacheIdentity(
        source=experiment.images.source("train").fingerprint,
        image_size=data.image_size,
        flip=data.flip,
        **experiment.parts.tokenizer.identity(params),
    )
    root = experiment.config.cache.path or str(experiment.workdir.latents)
    return storage.join(root, identity.hash), identity


def encode_params(experiment: Experiment) -> dict[str, Any]:
    """What encoding reads, on this host's devices."""
    parts = experiment.parts
    return {part: parts.params(part, mesh=experiment.own_mesh) for part in parts.tokenizer.encodes}


def check_room_for(experiment: Experiment, directory: str, identity: CacheIdentity) -> str:
    """How many images, views and bytes the latent cache will take, and what is free.

    Raises:
      ValueError: the disk is too small.
    """
    images, tokenizer = len(experiment.images.source("train")), experiment.parts.tokenizer
    views = 2 if experiment.config.data.flip else 1
    shape = (tokenizer.grid[0] * tokenizer.grid[1], tokenizer.channels)
    room = check_room(
        directory,
        bytes_to_write(directory, identity, images, shape),
        f"the latent cache of {images:,} images",
        "name another folder with --config.cache.path",
    )
    return f"{images:,} images, {images * views:,} records of {shape[0]} × {shape[1]}, {room}"


def check_request(experiment: Experiment) -> None:
    """Refuses a cache that cannot be written, before anything is computed.

    Raises:
      ValueError: see `check_room_for`, or other images or another encoder than the cache was begun with.
    """
    if read_record(experiment.workdir, FOLDER) is None or not experiment.is_done(STAGE):
        check_room_for(experiment, *cache_place(experiment, encode_params(experiment)))


def run(experiment: Experiment, stage: Stage) -> None:
    """Writes the cache; shards an earlier run finished are kept."""
    config, parts = experiment.config, experiment.parts
    params, source = encode_params(experiment), experiment.images.source("train")
    directory, identity = cache_place(experiment, params)
    mixture = experiment.images.mixture
    inside = not config.cache.path
    record = Record(
        made_of={"images": identity.source, "encoder": identity.encoder_weights, "compressor": identity.compressor},
        facts={
            "directory": f"{FOLDER}/{identity.hash}" if inside else storage.from_root(directory),
            "hash": identity.hash,
            "grid": list(parts.tokenizer.grid),
            "channels": parts.tokenizer.channels,
            "mixture": mixture and {"starts": list(mixture.starts), "weights": list(mixture.weights)},
        },
    )
    before = read_record(experiment.workdir, FOLDER)
    if before is not None:
        check_lineage(stage.name, experiment.workdir, before, record.made_of)
    elif is_first():
        write_record(experiment.workdir, FOLDER, record)
    encode = parts.run_here(make_posterior(parts, experiment.own_mesh), params)
    place = (directory, identity, source)
    own, shard_size = hosts(), config.cache.shard_size
    try:
        say(f"cache: {check_room_for(experiment, directory, identity)}")
        write_cache(
            *place,
            encode,
            batch=max(config.cache.batch // own["hosts"], 1),
            shard_size=shard_size,
            **own,
            reading=experiment.images.reading,
            tolerate=config.data.tolerate,
            progress=report_progress("cache"),
        )
        wait_for_hosts(*place, shard_size=shard_size, hosts=own["hosts"])
    except ValueError as error:
        raise RunFailed(f"cache: {error}") from error
    if is_first():
        write_record(experiment.workdir, FOLDER, dataclasses.replace(record, finished=len(source)))


def is_there(experiment: Experiment, record: Record) -> bool:
    """Whether the finished cache is where the configuration wants it."""
    root = experiment.config.cache.path
    name = record.facts["hash"]
    place = storage.join(storage.from_root(root), name) if root else f"{FOLDER}/{name}"
    if record.facts["directory"] != place:
        return False
    try:
        read_header(latents_directory(experiment.workdir))
    except (FileNotFoundError, ValueError):  # not there, or damaged: written anew from its shards
        return False
    return True


STAGE = Stage(name="cache", run=run, needs=("features",), is_there=is_there, folder=FOLDER)
