"""Flow matching (SiT, arXiv 2401.08740): a network learns the velocity of the straight path from data to noise.

    z_t = (1 − t) z + t ε,   v = ε − z,   L = mean (v̂(z_t, t, condition) − v)²                           (1)

t is uniform before the timestep shift of `fae_jax.diffusion.path`. Samples are drawn by any sampler of
`fae_jax.diffusion.samplers` over the velocity, guided as `fae_jax.diffusion.guidance` says.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from fae_jax.conditions import Condition
from fae_jax.diffusion.guidance import function_evaluations, guided, make_schedule
from fae_jax.diffusion.path import training_pair
from fae_jax.diffusion.samplers import Euler, make_sampler, sample
from fae_jax.generators.networks import NETWORKS
from fae_jax.kinds import find
from fae_jax.nn.params import init_params, looped
from fae_jax.section import above, option, plug


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlowMatchingSection:
    """Flow matching on the straight path."""

    train_shift: float = option(0.4, "timestep shift in training; 1 = none, smaller = noisier", above(0))
    network: str = plug("dit", "the network that predicts the velocity: dit, or mmdit for text", "networks", NETWORKS)


def sampler_of(settings: Any) -> Euler:
    """The sampler that the section `sampling` describes.

    Raises:
      ValueError: its name is unknown or a value is out of its range.
    """
    return make_sampler(settings.sampler, steps=settings.steps, shift=settings.shift, last_step=settings.last_step)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlowMatching:
    """See `fae_jax.generators.Generator`.

    Attributes:
      network: see `fae_jax.generators.networks`.
      shape: tokens and channels of a latent.
      condition: what the network is told.
      train_shift: timestep shift in training; 1 = none, smaller = noisier.
    """

    network: nn.Module
    shape: tuple[int, int]
    condition: Condition
    train_shift: float

    Section = FlowMatchingSection

    @classmethod
    def build(
        cls, section: Any, *, grid: tuple[int, int], channels: int, condition: Condition, compute: Any
    ) -> FlowMatching:
        """From the section `generator.flow_matching`."""
        network = find("networks", NETWORKS, section.network)
        made = network.build(getattr(section, section.network), grid=grid, condition=condition, compute=compute)
        shape = (grid[0] * grid[1], channels)
        return cls(network=made, shape=shape, condition=condition, train_shift=section.train_shift)

    def looped(self, dtype: str = "") -> FlowMatching:
        """With blocks compiled once, for programs that run few times; in `dtype` where it is given."""
        return dataclasses.replace(self, network=looped(self.network, dtype))

    def init(self, key: Key[Array, ""]) -> Any:
        return init_params(self.network, key, jnp.zeros((1, *self.shape)), jnp.zeros((1,)), self.condition.none(1))

    def velocity(
        self, params: Any, z: Float[Array, "b n c"], t: Float[Array, " b"], condition: Any
    ) -> Float[Array, "b n c"]:
        """v̂ of equation (1)."""
        return self.network.apply({"params": params}, z, t, condition)

    def loss(
        self, params: Any, z: Float[Array, "b n c"], condition: Any, keys: Key[Array, " b"], step: Array
    ) -> tuple[Float[Array, ""], dict[str, Array]]:
        pair = training_pair(keys, z, self.train_shift)
        return jnp.mean((self.velocity(params, pair.noisy, pair.time, condition) - pair.velocity) ** 2), {}

    def sample(self, params: Any, keys: Key[Array, " b"], condition: Any, settings: Any) -> Float[Array, "b n c"]:
        schedule = make_schedule(settings.guidance)
        velocity = guided(lambda z, t, told: self.velocity(params, z, t, told), schedule, self.condition.none(1))
        return sample(sampler_of(settings), lambda z, t: velocity(z, t, condition), keys, self.shape)

    def evaluations(self, settings: Any) -> int:
        return function_evaluations(sampler_of(settings).evaluation_times(), make_schedule(settings.guidance))
