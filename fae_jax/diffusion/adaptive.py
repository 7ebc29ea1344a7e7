"""From noise to latents with steps of the length that each sample needs: the pair of Dormand and Prince, order 5 (4).

With dz = v(z, t) dt from t = 1 to t = 0, a step of length h evaluates the velocity at seven stages,

    k_1 = v(z, t),   k_i = v(z − h Σ_{j<i} a_ij k_j, t − c_i h),   i = 2, …, 7                     (1)

of which the last is at the new state z' and is k_1 of the next step. The error is the difference to the formula of
order 4, δ = h Σ e_i k_i, in units of what is tolerated, over the values of one sample:

    E = √ mean (δ / (atol + rtol max(|z|, |z'|)))²                                                 (2)

A step of E ≤ 1 is taken; the next one's length is h · min(10, max(1/5, 0.9 E^(−1/5))), whether it was or not (Hairer,
Nørsett and Wanner, Solving Ordinary Differential Equations I, II.4 and II.5). Each sample has a time, a length and an
error of its own, so that it does not depend on the others of its batch, which goes on until the last one is at 0.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from fae_jax.diffusion.path import along

A = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
C = (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
FIRST, SHORTEST = 0.05, 1e-4  # lengths: of the first step tried, and of one that is taken whatever its error


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dopri5:
    """See the module.

    Attributes:
      rtol, atol: what is tolerated, of equation (2).
    """

    rtol: float = 1e-3
    atol: float = 1e-6

    def __call__(
        self, velocity: Callable[[Array, Array], Array], noise: Float[Array, "b n c"], keys: Key[Array, " b"]
    ) -> Float[Array, "b n c"]:
        """See `fae_jax.diffusion.samplers.Euler`."""
        return self.counted(velocity, noise, jnp.ones_like)[0]

    def counted(
        self, velocity: Callable[[Array, Array], Array], noise: Float[Array, "b n c"], cost: Callable[[Array], Array]
    ) -> tuple[Float[Array, "b n c"], Int[Array, " b"]]:
        """Latents at t = 0, and the evaluations of each.

        Args:
          velocity: velocity(z, t): float32 (b, n, c), float32 (b,) → (b, n, c).
          noise: the state at t = 1.
          cost: times (b,) → evaluations of a network in one of the velocity there.
        """

        def at(z: Array, t: Array) -> Array:
            return velocity(z, t).astype(jnp.float32)

        def step(state: Any) -> Any:
            z, first, t, h, count = state
            active, h = t > 0, jnp.minimum(h, t)
            k = [first]
            for row, c in zip(A, C, strict=True):
                new = z - along(h, z) * sum(a * each for a, each in zip(row, k, strict=True) if a)
                k.append(at(new, t - c * h))
                count = count + jnp.where(active, cost(t - c * h), 0).astype(jnp.int32)
            delta = along(h, z) * sum(e * each for e, each in zip(ERROR, k, strict=True) if e)
            scale = self.atol + self.rtol * jnp.maximum(jnp.abs(z), jnp.abs(new))
            error = jnp.sqrt(jnp.mean((delta / scale) ** 2, axis=(1, 2)))
            # What is no number is taken, and seen in the sample: it gets no better by shorter steps.
            taken = active & (~(error > 1) | (h <= SHORTEST))
            factor = jnp.where(error > 0, jnp.clip(0.9 * error**-0.2, 0.2, 10.0), 10.0)
            z, first = (jnp.where(taken[:, None, None], *pair) for pair in ((new, z), (k[-1], first)))
            return z, first, jnp.where(taken, t - h, t), jnp.maximum(h * factor, SHORTEST), count

        z = noise.astype(jnp.float32)
        t = jnp.ones(z.shape[:1], jnp.float32)
        state = (z, at(z, t), t, FIRST * t, cost(t).astype(jnp.int32))
        z, _, _, _, count = jax.lax.while_loop(lambda state: jnp.any(state[2] > 0), step, state)
        return z, count
