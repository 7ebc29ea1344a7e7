"""What shapes a latent space beside reconstruction and KL: PAE's three regularisers (arXiv 2605.07915).

Equations (1) to (3) are our reading of that paper's description, not its code: PAE trains an encoder of its own
against refined priors; here the frozen encoder's features x are the prior, for that is what FAE has. For a latent
z of n tokens, u(a) = a / ‖a‖, and x in the space the autoencoder works in:

    structure    mean over i, j of (u(z_i)·u(z_j) − u(x_i)·u(x_j))²                                           (1)
                 the Gram matrix of an image's latent is that of its features: spatial structure
    continuity   (1/K) Σ_{k=1…K} mean ‖D(z + s_k ε) − sg D(z + s_{k−1} ε)‖² / v,   s_k = k s / K              (2)
                 the decoded features change little as one perturbation ε grows: local continuity
    semantics    1 − u(A z̄)·u(x̄) + mean over i of (1 − u(A z_i)·u(x_i)),   z̄, x̄ means over tokens             (3)
                 features can be read off the latent by one linear layer A, pooled and patch by patch

sg stops the gradient, v is the features' average channel variance. Each is a mean over images.
"""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fae_jax.nn.dense import Dense


def unit(x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """Vectors of length 1; a vector of length 0 stays, with a gradient that is a number."""
    return x * jax.lax.rsqrt(jnp.sum(x**2, axis=-1, keepdims=True) + 1e-12)


def structure_loss(latents: Float[Array, "b n c"], features: Float[Array, "b n d"]) -> Float[Array, ""]:
    """Equation (1)."""

    def gram(x: Array) -> Array:
        return jnp.einsum("bid,bjd->bij", unit(x), unit(x), precision="highest")

    return jnp.mean((gram(latents) - gram(features)) ** 2)


def continuity_loss(
    decode: Callable[[Array], Array],
    latents: Float[Array, "b n c"],
    noise: Float[Array, "b n c"],
    *,
    reach: float,
    levels: int,
    variance: float,
) -> Float[Array, ""]:
    """Equation (2): K = `levels` further passes of the feature decoder.

    Args:
      decode: latents → features.
      noise: ε.
      reach: s, the standard deviation of the largest perturbation.
      levels: K.
      variance: v.
    """
    before, total = decode(latents), jnp.zeros(())
    for level in range(1, levels + 1):
        after = decode(latents + (reach * level / levels) * noise)
        total += jnp.mean((after - jax.lax.stop_gradient(before)) ** 2)
        before = after
    return total / (levels * variance)


class SemanticHead(nn.Module):
    """The linear layer A of equation (3): latents (b, n, c) → features (b, n, width); dropped after training."""

    width: int

    @nn.compact
    def __call__(self, latents: Float[Array, "b n c"]) -> Float[Array, "b n d"]:
        return Dense(self.width, use_bias=False, name="linear")(latents)


def semantics_loss(read: Float[Array, "b n d"], features: Float[Array, "b n d"]) -> Float[Array, ""]:
    """Equation (3), of what A reads off the latent, A z_i."""

    def missed(a: Array, b: Array) -> Array:
        return jnp.mean(1 - jnp.sum(unit(a) * unit(b), axis=-1))

    return missed(read.mean(1), features.mean(1)) + missed(read, features)
