"""A Gaussian with diagonal covariance per class, fitted by its likelihood.

−log p(z | class) = Σ ½ ((z − μ) / σ)² + log σ, up to a constant                                        (1)
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from fae_jax.section import above, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class GaussianSection:
    temperature: float = option(1.0, "factor of the standard deviation at sampling", above(0))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gaussian:
    """See `fae_jax.generators.Generator`. The last row of the parameters is of no class."""

    condition: Any
    shape: tuple[int, int]
    temperature: float
    Section = GaussianSection

    @classmethod
    def build(cls, section, *, grid, channels, condition, compute):
        return cls(condition=condition, shape=(grid[0] * grid[1], channels), temperature=section.temperature)

    def init(self, key):
        zeros = jnp.zeros((self.condition.classes + 1, *self.shape))
        return {"mean": zeros, "log_deviation": zeros}

    def loss(self, params, z, condition, keys, step):
        rows = self.condition.drop(keys, condition)
        mean, log_deviation = params["mean"][rows], params["log_deviation"][rows]
        error = 0.5 * ((z - mean) * jnp.exp(-log_deviation)) ** 2
        return jnp.mean(error + log_deviation), {"error": jnp.mean(error)}  # equation (1)

    def sample(self, params, keys, condition, settings):
        noise = jax.vmap(lambda key: jax.random.normal(key, self.shape))(keys)
        deviation = self.temperature * jnp.exp(params["log_deviation"][condition])
        return params["mean"][condition] + deviation * noise

    def evaluations(self, settings):
        return 1
