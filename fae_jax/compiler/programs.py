"""The program of each stage as it will run on a mesh, lowered from shapes.

| stage | program |
|---|---|
| features, pixels, finetune, generator, post_training | one training step |
| cache | one host's batch of images to posteriors |
| sample | one batch: all steps of the guided sampler, then both decoders |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fae_jax.model import FAE
from fae_jax.parallel.mesh import batch_divisor, batch_sharding
from fae_jax.stages import stage_of
from fae_jax.stages.cache import make_posterior
from fae_jax.stages.outline import Shapes, batch_shapes
from fae_jax.stages.running import stages_of
from fae_jax.stages.stage import Stage
from fae_jax.training.loop import abstract_state
from fae_jax.training.step import compile_step

STAGES = ("features", "pixels", "finetune", "cache", "generator", "post_training", "sample")


class Program(NamedTuple):
    """A lowered program.

    Attributes:
      lowered: what `jax.jit(...).lower(...)` gives.
      state: shapes, with places, of what stays in memory from call to call.
      batch: examples of a call, over all devices (cache: those of one host).
      hosts: that run the program each by themselves.
    """

    lowered: Any
    state: Any
    batch: int
    hosts: int = 1


def stages_to_compile(config: Any) -> list[str]:
    """What an experiment compiles: each stage that trains, but for an encoder of its own, the cache, and sampling."""
    trained = [stage for stage in stages_of(config) if stage.players is not None or stage.name == "cache"]
    return [*(stage.name for stage in trained if stage.name != "encoder"), "sample"]


def lower(config: Any, stage: str, mesh: jax.sharding.Mesh, own: list[jax.Device] | None = None) -> Program:
    """The program of a stage.

    Args:
      own: one host's devices, see `Shapes`.

    Raises:
      ValueError: the stage is unknown, or a batch does not divide over the mesh; it names the field.
    """
    shapes = Shapes(config, mesh, own)
    if stage not in (known := stages_to_compile(shapes.config)):
        raise ValueError(f"stage {stage!r} cannot be compiled; choose one of {', '.join(known)}")
    special: Mapping[str, Callable[[Shapes], Program]] = {"cache": _cache, "sample": _sample}
    return special[stage](shapes) if stage in special else _training(shapes, stage_of(stage))


def _training(shapes: Shapes, stage: Stage) -> Program:
    assert stage.players is not None
    section, config = stage.section(shapes.config), shapes.config
    check_batch(f"{stage.name}.batch", section.batch, batch_divisor(shapes.mesh) * section.microbatches)
    players = stage.players(shapes)
    frozen = stage.frozen_params(shapes)
    state = abstract_state(players, shapes.mesh)
    step: Any = compile_step(players, section.microbatches, 0, shapes.mesh, config.compute.gradients)
    lowered = step.lower(state, frozen, batch_shapes(shapes, stage))
    return Program(lowered, (state, frozen), section.batch)


def check_batch(field: str, size: int, divisor: int) -> None:
    """Refuses a batch that does not divide over the mesh.

    Raises:
      ValueError: it names the field.
    """
    if size % divisor:
        raise ValueError(f"field {field}={size} must be a multiple of {divisor} on these devices")


def _cache(shapes: Shapes) -> Program:
    """The program of one host, on its own devices: hosts encode each by themselves."""
    mesh, batch = shapes.own_mesh, shapes.config.cache.batch // shapes.hosts
    check_batch("cache.batch", shapes.config.cache.batch, shapes.hosts * batch_divisor(mesh))
    params = {part: shapes.params(part, mesh=mesh) for part in shapes.tokenizer.encodes}
    size, place = shapes.config.data.image_size, batch_sharding(mesh)
    image = jax.ShapeDtypeStruct((batch, size, size, 3), jnp.uint8, sharding=place)
    posterior: Any = make_posterior(shapes, mesh)
    return Program(posterior.lower(params, image), params, batch, shapes.hosts)


def _sample(shapes: Shapes) -> Program:
    batch = shapes.config.sampling.batch
    check_batch("sampling.batch", batch, batch_divisor(shapes.mesh))
    model: Any = FAE(shapes)
    text = ("text",) if model.reads_text else ()
    params = {part: shapes.params(part) for part in (*shapes.tokenizer.decodes, *text, "generator")}
    run = model._sampling(model.settings())
    place = batch_sharding(shapes.mesh)

    def split(leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)

    keys = split(jax.eval_shape(lambda: jax.random.split(jax.random.key(0), batch)))
    asked = model.generator.condition
    if model.reads_text:
        condition = {
            name: jax.ShapeDtypeStruct((batch, *shape), dtype) for name, (shape, dtype) in asked.reads.items()
        }
    else:
        condition = asked.request(np.zeros(batch, np.int32))
    condition = jax.tree.map(split, condition)
    return Program(run.lower(params, keys, condition), params, batch)
