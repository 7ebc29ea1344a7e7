"""Stage II: the generator. Trained: the DiT. It reads the latent cache and nothing else.

record (μ, log σ²) → sample (z), standardise → path (z_t, v) → DiT → (v̂ − v)²
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array

from fae_jax.data.stores.latent_loader import sample_latents
from fae_jax.diffusion.path import training_pair
from fae_jax.generators import GENERATORS
from fae_jax.networks import init_params
from fae_jax.section import like, plug
from fae_jax.stages.experiment import Experiment
from fae_jax.training.loop import Task
from fae_jax.training.optimizer import TrainingSection, make_optimizer
from fae_jax.training.state import Player


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeneratorSection(TrainingSection):
    """Stage II."""

    steps: int = like(TrainingSection, "steps", 2_000_000)
    batch: int = like(TrainingSection, "batch", 512)
    schedule: str = like(TrainingSection, "schedule", "constant")
    warmup: int = like(TrainingSection, "warmup", 0)
    ema: tuple[Any, ...] = like(TrainingSection, "ema", (0.9999,))
    kind: str = plug("flow_matching", "flow_matching", "generators", GENERATORS)


def drop_labels(labels: Array, keys: Array, share: float, none: int) -> Array:
    """Replaces a `share` of the labels by `none`, the label of "no class"."""
    dropped = jax.vmap(lambda key: jax.random.bernoulli(key, share))(keys)
    return jnp.where(dropped, none, labels)


def make_task(experiment: Experiment) -> Task:
    """The player `dit`."""
    config, networks = experiment.config, experiment.networks
    section, classes = config.generator, config.data.classes
    statistics = experiment.cache.header.statistics
    shape = (networks.grid[0] * networks.grid[1], networks.compressor.latent_width)

    def init(key: Array) -> dict[str, Any]:
        label = jnp.zeros((1,), jnp.int32)
        return init_params(networks.dit, key, jnp.zeros((1, *shape)), jnp.zeros((1,)), label)

    def loss(params: Any, frozen: Mapping[str, Any], batch: Mapping[str, Array], keys: Array, step: Array):
        sample_keys, pair_keys, drop_keys = rearrange(
            jax.vmap(lambda key: jax.random.split(key, 3))(keys), "b three -> three b"
        )
        latents = sample_latents(batch, sample_keys, statistics)
        pair = training_pair(pair_keys, latents, section.flow_matching.train_shift)
        labels = drop_labels(batch["label"], drop_keys, config.condition.dropout, classes)
        velocity = networks.dit.apply({"params": params}, pair.noisy, pair.time, labels)
        return jnp.mean((velocity - pair.velocity) ** 2), {}

    return Task(
        name="generator",
        players={"dit": Player(init=init, loss=loss, optimizer=make_optimizer(section))},
        frozen={},
        batches=experiment.latent_loader(section.batch).at,
        seed=experiment.seed("generator"),
        section=section,
    )


def run(experiment: Experiment) -> None:
    """Trains the stage to its end."""
    experiment.train(make_task(experiment))
