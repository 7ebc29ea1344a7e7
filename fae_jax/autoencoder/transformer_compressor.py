"""The ablation's deeper compressor: k transformer blocks, as the feature decoder has them, and a linear layer.

h = x, or W x + b where the blocks are not as wide as the features
h ← Block(h) k times (RMSNorm, rotary attention, SwiGLU);   (μ, log σ²) = W' RMSNorm(h) + b'
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from fae_jax.autoencoder.posterior import GAUSSIAN, Posterior, PosteriorKind
from fae_jax.nn.attention import split_width
from fae_jax.nn.blocks import Block, make_norm, stack
from fae_jax.nn.compute import ComputeSection
from fae_jax.nn.dense import Dense
from fae_jax.nn.embeddings import check_tokens, rotary_table
from fae_jax.section import at_least, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformerSection:
    """Sizes of the transformer compressor."""

    depth: int = option(6, "blocks", at_least(1))
    width: int = option(0, "channels of the blocks; 0 = the encoder's", at_least(0))
    heads: int = option(24, "attention heads", at_least(1))
    hidden: int = option(4096, "inner width of the SwiGLU", at_least(1))


class TransformerCompressor(nn.Module):
    """Features (b, n, d) → posterior over (b, n, latent_width).

    Attributes:
      latent_width: channels of the latent.
      grid: rows and columns of tokens, n = rows · columns.
      depth, width, heads, hidden: blocks, their channels, heads, and inner width of the SwiGLU.
      posterior: what the last linear's numbers mean.
      dtype, residual: dtypes of the matrix products and of the residual stream.
    """

    latent_width: int
    grid: tuple[int, int]
    depth: int
    width: int
    heads: int
    hidden: int
    posterior: PosteriorKind = GAUSSIAN
    dtype: jnp.dtype = jnp.float32
    residual: jnp.dtype = jnp.float32
    kernel: str = "auto"
    scan: bool = True
    remat: str = "none"

    Section = TransformerSection

    @classmethod
    def build(
        cls, section: Any, *, grid: tuple[int, int], width: int, compute: ComputeSection
    ) -> TransformerCompressor:
        """See `fae_jax.autoencoder.kinds.make_compressor`.

        Raises:
          ValueError: heads do not divide the width of the blocks.
        """
        own = section.transformer
        inner = own.width or width
        if inner % own.heads:
            raise ValueError(f"compressor.transformer.heads={own.heads} must divide the width of its blocks, {inner}")
        sizes = (section.latent_width, grid, own.depth, inner, own.heads, own.hidden)
        return cls(*sizes, section.posterior, **compute.blocks)

    @nn.compact
    def __call__(self, features: Float[Array, "b n d"]) -> Posterior:
        """See the class.

        Raises:
          ValueError: the number of tokens is not the grid's, or `heads` does not divide `width`.
        """
        check_tokens(features.shape[1], self.grid)
        head_width = split_width(self.width, self.heads)
        x = features
        if self.width != features.shape[-1]:
            init = nn.initializers.xavier_uniform()
            x = Dense(self.width, dtype=self.dtype, kernel_init=init, name="embed")(x)
        x = x.astype(self.residual)
        block = functools.partial(
            Block, self.heads, head_width, self.hidden, norm="rms", dtype=self.dtype, kernel=self.kernel
        )
        x = stack(block, self.depth, x, rotary_table(head_width, self.grid), scan=self.scan, remat=self.remat)
        x = make_norm("rms", name="last_norm")(x)
        return self.posterior.of(x, self.latent_width, self.dtype)
