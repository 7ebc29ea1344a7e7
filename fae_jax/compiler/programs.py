"""The program of each stage as it will run on a mesh, lowered from shapes.

| stage | program |
|---|---|
| features, pixels, finetune, generator | one training step |
| cache | one host's batch of images to posteriors |
| sample | one batch: all steps of the guided sampler, then both decoders |
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fae_jax.diffusion.guidance import make_schedule
from fae_jax.model import FAE
from fae_jax.parallel.mesh import batch_divisor, batch_sharding
from fae_jax.stages.cache import make_posterior
from fae_jax.stages.outline import TASKS, Outline
from fae_jax.training.loop import abstract_state
from fae_jax.training.step import compile_step

STAGES = ("features", "pixels", "finetune", "cache", "generator", "sample")


class Program(NamedTuple):
    """A lowered program.

    Attributes:
      lowered: of `jax.jit(...).lower(...)`.
      state: shapes, with places, of what stays in memory from call to call.
      batch: examples of a call, over all devices (cache: those of one host).
      hosts: that run the program each by themselves.
    """

    lowered: Any
    state: Any
    batch: int
    hosts: int = 1


def lower(config: Any, stage: str, mesh: jax.sharding.Mesh, own: list[jax.Device] | None = None) -> Program:
    """The program of a stage.

    Args:
      own: one host's devices, see `Outline`.

    Raises:
      ValueError: the stage is unknown, or a batch does not divide over the mesh; it names the field.
    """
    if stage not in STAGES:
        raise ValueError(f"stage {stage!r} cannot be compiled; choose one of {', '.join(STAGES)}")
    experiment = Outline(config, mesh, own)
    if stage == "cache":
        return _cache(experiment)
    if stage == "sample":
        return _sample(experiment)
    section = experiment.section(stage)
    experiment.check_batch(f"{stage}.batch", section.batch, section.microbatches)
    task = TASKS[stage](experiment)
    state = abstract_state(task.players, mesh)
    step: Any = compile_step(task.players, section.microbatches, task.seed, mesh)
    lowered = step.lower(state, task.frozen, next(task.batches(0)))
    return Program(lowered, (state, task.frozen), section.batch)


def _cache(experiment: Outline) -> Program:
    """Of one host, on its own devices: hosts encode each by themselves."""
    mesh, total = experiment.own_mesh, experiment.config.cache.batch
    batch = total // experiment.hosts
    if batch * experiment.hosts != total or batch % batch_divisor(mesh):
        wanted = experiment.hosts * batch_divisor(mesh)
        raise ValueError(f"field cache.batch={total} must be a multiple of {wanted} on these devices")
    compressor = experiment.load_params("features", "autoencoder", mesh=mesh)["compressor"]
    state = (experiment.own_encoder, compressor)
    size, place = experiment.config.data.image_size, batch_sharding(mesh)
    image = jax.ShapeDtypeStruct((batch, size, size, 3), jnp.uint8, sharding=place)
    posterior: Any = make_posterior(experiment)
    return Program(posterior.lower(*state, image), state, batch, experiment.hosts)


def _sample(experiment: Outline) -> Program:
    batch = experiment.config.sampling.batch
    experiment.check_batch("sampling.batch", batch)
    state = (
        experiment.load_params("generator", "dit"),
        experiment.load_params("features", "autoencoder")["feature_decoder"],
        experiment.load_params("pixels", "pixel_decoder"),
    )
    model: Any = FAE(experiment)
    run = model._sampling(model.sampler(), make_schedule(experiment.config.sampling.guidance))
    place = batch_sharding(experiment.mesh)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), batch))
    keys = jax.ShapeDtypeStruct(keys.shape, keys.dtype, sharding=place)
    labels = jax.ShapeDtypeStruct((batch,), jnp.int32, sharding=place)
    return Program(run.lower(*state, keys, labels), state, batch)
