"""The FAE encoder: one self-attention layer and one linear layer, from features to a latent posterior.

For features x (n tokens of d channels), with biased linears Q, K, V, S from d to h·e channels:

    a = softmax(Q(x) K(x)ᵀ / √e) V(x)        per head, no output projection    (1)
    (μ, log σ²) = W act(S(x) + a) + b                                          (2)

With d = 1536, 24 heads of 256 and 32 latent channels this has the 38,166,592 parameters of the paper (38.17 M).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float

from fae_jax.autoencoder.posterior import GAUSSIAN, Posterior, PosteriorKind
from fae_jax.nn.attention import attention
from fae_jax.nn.compute import ComputeSection
from fae_jax.nn.dense import Dense
from fae_jax.section import at_least, one_of, option

ACTIVATIONS = {"silu": nn.silu, "gelu": nn.gelu, "none": lambda x: x}


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionSection:
    """Sizes of the attention compressor."""

    heads: int = option(24, "attention heads", at_least(1))
    head_width: int = option(256, "channels per head", at_least(1))
    activation: str = option("silu", "after skip + attention: silu, gelu or none", one_of(*ACTIVATIONS))


class Compressor(nn.Module):
    """Equations (1) and (2): features (b, n, d) → posterior over (b, n, latent_width).

    Attributes:
      latent_width: channels of the latent (32 in the paper).
      heads, head_width: 24 and 256 in the paper.
      activation: one of `ACTIVATIONS`.
      posterior: what the last linear's numbers mean.
      dtype: dtype of the matrix products.
    """

    latent_width: int
    heads: int
    head_width: int
    activation: str = "silu"
    posterior: PosteriorKind = GAUSSIAN
    dtype: jnp.dtype = jnp.float32
    kernel: str = "auto"

    Section = AttentionSection

    @classmethod
    def build(cls, section: Any, *, grid: tuple[int, int], width: int, compute: ComputeSection) -> Compressor:
        """See `fae_jax.autoencoder.kinds.make_compressor`."""
        own = section.attention
        sizes = (section.latent_width, own.heads, own.head_width, own.activation)
        return cls(*sizes, section.posterior, **compute.products)

    @nn.compact
    def __call__(self, features: Float[Array, "b n d"]) -> Posterior:
        """See the class.

        Raises:
          ValueError: `activation` is unknown.
        """
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation {self.activation!r} is unknown; choose one of {', '.join(ACTIVATIONS)}")
        inner = self.heads * self.head_width
        init = nn.initializers.xavier_uniform()

        def linear(name: str) -> Array:
            return Dense(inner, dtype=self.dtype, kernel_init=init, name=name)(features)

        query, key, value = (
            rearrange(linear(name), "b n (h e) -> b n h e", h=self.heads) for name in ("query", "key", "value")
        )
        mixed = rearrange(attention(query, key, value, kernel=self.kernel), "b n h e -> b n (h e)")
        hidden = ACTIVATIONS[self.activation](linear("skip") + mixed)
        return self.posterior.of(hidden, self.latent_width, self.dtype)
