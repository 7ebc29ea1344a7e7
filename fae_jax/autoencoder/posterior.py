"""What a compressor says of an image's latent: a diagonal Gaussian over n tokens of c channels.

From the c or 2 c numbers m (and s) that a compressor's last linear gives per token:

    gaussian         μ = m,  log σ² = clip(s)                                   (paper)          (1)
    fixed_variance   μ = m,  log σ² = 2 log σ₀ for every image                (for flows)      (2)
    rms              μ = m / √(mean over channels m² + 10⁻⁶),  σ = 0            (GAE)            (3)
    sphere           μ = √c · m / ‖m‖ per token,  σ = 0                         (PAE)            (4)

    z = μ + σ ε,   ε ~ N(0, 1)                                                                  (5)

(3) and (4) bound the latent by themselves and have no KL divergence; (3) lets a token of small m stay inside, (4)
puts every token on the sphere of radius √c. Their σ is e⁻¹⁵, not 0, so that log σ² is a number that can be stored.
Whoever gets a `Posterior` (cache, generator, decoder) need not know which kind it is.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from fae_jax.nn.dense import Dense
from fae_jax.section import above, numbers, one_of, option

POSTERIORS = ("gaussian", "fixed_variance", "rms", "sphere")
CERTAIN = -30.0  # log σ² of a latent without noise


class Posterior(NamedTuple):
    """A diagonal Gaussian over latents; both parts float32 of shape (b, n, c)."""

    mean: Array
    log_variance: Array

    def sample(self, keys: Key[Array, " b"]) -> Float[Array, "b n c"]:
        """Equation (5), with one key per example."""
        noise = jax.vmap(lambda key, mean: jax.random.normal(key, mean.shape))(keys, self.mean)
        return self.mean + jnp.exp(0.5 * self.log_variance) * noise


def certain(mean: Float[Array, "b n c"]) -> Posterior:
    """The posterior of a latent that is known exactly."""
    return Posterior(mean, jnp.full_like(mean, CERTAIN))


@dataclasses.dataclass(frozen=True, kw_only=True)
class PosteriorKind:
    """How a compressor's last hidden values become a posterior, equations (1) to (4)."""

    kind: str = option(
        "gaussian", "gaussian, fixed_variance (for flows), rms (GAE) or sphere (PAE)", one_of(*POSTERIORS)
    )
    sigma: float = option(0.3, "fixed_variance: standard deviation of the latent's noise", above(0))
    log_variance_range: tuple[Any, ...] = option(
        (CERTAIN, 20.0),
        "gaussian: its log-variance is clipped to it",
        numbers(2, "a low and a high bound", lambda low, high: low < high),
    )

    @property
    def has_divergence(self) -> bool:
        """Whether a KL divergence to N(0, 1) says anything of it."""
        return self.kind in ("gaussian", "fixed_variance")

    def of(self, hidden: Float[Array, "b n k"], latent_width: int) -> Posterior:
        """A biased float32 linear named `moments`, and the posterior it says; call it in a `@nn.compact` method."""
        numbers = 2 * latent_width if self.kind == "gaussian" else latent_width
        init = nn.initializers.xavier_uniform()
        moments = Dense(numbers, kernel_init=init, name="moments")(hidden)
        if self.kind == "gaussian":
            mean, log_variance = jnp.split(moments, 2, axis=-1)
            return Posterior(mean, jnp.clip(log_variance, *self.log_variance_range))
        if self.kind == "fixed_variance":
            return Posterior(moments, jnp.full_like(moments, 2 * math.log(self.sigma)))
        energy = jnp.mean(moments**2, axis=-1, keepdims=True)
        slack = 1e-6 if self.kind == "rms" else 1e-30
        return certain(moments * jax.lax.rsqrt(energy + slack))


GAUSSIAN = PosteriorKind()
