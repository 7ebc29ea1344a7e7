"""The two ends of the paper's ablation: a linear layer per token, and no compression at all.

linear:     (μ, log σ²) = W x + b                                          (1)
identity:   μ = x, σ = 0: the latent is as wide as the features            (2)
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from fae_jax.autoencoder.posterior import GAUSSIAN, Posterior, PosteriorKind, certain
from fae_jax.nn.compute import ComputeSection


class LinearCompressor(nn.Module):
    """Equation (1): features (b, n, d) → posterior over (b, n, latent_width).

    Attributes:
      latent_width: channels of the latent.
      posterior: what the linear's numbers mean.
      dtype: dtype of the matrix product.
    """

    latent_width: int
    posterior: PosteriorKind = GAUSSIAN
    dtype: jnp.dtype = jnp.float32

    @classmethod
    def build(cls, section: Any, *, grid: tuple[int, int], width: int, compute: ComputeSection) -> LinearCompressor:
        """See `fae_jax.autoencoder.kinds.make_compressor`."""
        return cls(section.latent_width, section.posterior, compute.products["dtype"])

    @nn.compact
    def __call__(self, features: Float[Array, "b n d"]) -> Posterior:
        return self.posterior.of(features, self.latent_width, self.dtype)


class IdentityCompressor(nn.Module):
    """Equation (2), without parameters: features (b, n, latent_width) → themselves, float32."""

    latent_width: int

    @classmethod
    def build(cls, section: Any, *, grid: tuple[int, int], width: int, compute: ComputeSection) -> IdentityCompressor:
        """See `fae_jax.autoencoder.kinds.make_compressor`; the latent is as wide as the features in any case."""
        return cls(width)

    @nn.compact
    def __call__(self, features: Float[Array, "b n d"]) -> Posterior:
        return certain(features.astype(jnp.float32))
