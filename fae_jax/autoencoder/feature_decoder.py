"""The feature decoder: latents back into the encoder's own feature space.

    h = W z + b + P;   h ← Block(h) six times (RMSNorm, rotary attention, SwiGLU);   x̂ = RMSNorm(h) or h

Blocks are as wide as the features and there is no output linear, unless `inner_width` says otherwise: then a linear
leads from the blocks' channels to the features', before the last norm. For 1536 channels, 24 heads and a SwiGLU of
4096: 170,428,416 parameters with the last norm (170.43 M in the paper) and 170,426,880 without it.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from fae_jax.nn.attention import split_width
from fae_jax.nn.blocks import Block, make_norm, stack
from fae_jax.nn.compute import ComputeSection
from fae_jax.nn.dense import Dense
from fae_jax.nn.embeddings import PositionTable, check_tokens, rotary_table
from fae_jax.section import at_least, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformerSection:
    """Sizes of the feature decoder."""

    depth: int = option(6, "blocks", at_least(1))
    width: int = option(0, "channels of the blocks; 0 = the encoder's, without an output linear", at_least(0))
    heads: int = option(24, "attention heads", at_least(1))
    hidden: int = option(4096, "inner width of the SwiGLU", at_least(1))
    last_norm: bool = option(True, "end with an RMSNorm: goes with feature_norm=none, and only with it")


class FeatureDecoder(nn.Module):
    """Latents (b, n, c) → features (b, n, width), float32.

    Attributes:
      grid: rows and columns of tokens, n = rows · columns.
      width: channels of the encoder's features.
      depth, heads, hidden: number of blocks, heads, inner width of the SwiGLU.
      inner_width: channels of the blocks; 0 means `width`.
      dtype, residual: dtypes of the matrix products and of the residual stream.
      last_norm: end with an RMSNorm (right for a ViT's raw final-norm features, which have a fixed energy).
    """

    grid: tuple[int, int]
    width: int
    depth: int
    heads: int
    hidden: int
    last_norm: bool
    dtype: jnp.dtype = jnp.float32
    residual: jnp.dtype = jnp.float32
    kernel: str = "auto"
    scan: bool = True
    remat: str = "none"
    inner_width: int = 0

    Section = TransformerSection

    @classmethod
    def build(cls, section: Any, *, grid: tuple[int, int], width: int, compute: ComputeSection) -> FeatureDecoder:
        """See `fae_jax.autoencoder.kinds.make_feature_decoder`.

        Raises:
          ValueError: heads do not divide the width of the blocks.
        """
        own = section.transformer
        inner = own.width or width
        if inner % own.heads:
            name = "its width" if own.width else "the encoder's width"
            raise ValueError(f"feature_decoder.transformer.heads={own.heads} must divide {name} {inner}")
        sizes = (grid, width, own.depth, own.heads, own.hidden, own.last_norm)
        return cls(*sizes, inner_width=inner, **compute.blocks)

    @nn.compact
    def __call__(self, latents: Float[Array, "b n c"]) -> Float[Array, "b n d"]:
        """See the class.

        Raises:
          ValueError: the number of tokens is not the grid's, or `heads` does not divide the width of the blocks.
        """
        check_tokens(latents.shape[1], self.grid)
        inner = self.inner_width or self.width
        head_width = split_width(inner, self.heads)
        init = nn.initializers.xavier_uniform()
        x = Dense(inner, dtype=self.dtype, kernel_init=init, name="embed")(latents)
        x = PositionTable(self.grid[0] * self.grid[1], name="position")(x.astype(self.residual))
        block = functools.partial(
            Block, self.heads, head_width, self.hidden, norm="rms", dtype=self.dtype, kernel=self.kernel
        )
        x = stack(block, self.depth, x, rotary_table(head_width, self.grid), scan=self.scan, remat=self.remat)
        if inner != self.width:
            x = Dense(self.width, dtype=self.dtype, kernel_init=init, name="to_features")(x)
        if self.last_norm:
            x = make_norm("rms", name="last_norm")(x)
        return x.astype(jnp.float32)


class IdentityFeatureDecoder(nn.Module):
    """Latents that are features already, as `IdentityCompressor` leaves them; without parameters."""

    @classmethod
    def build(
        cls, section: Any, *, grid: tuple[int, int], width: int, compute: ComputeSection
    ) -> IdentityFeatureDecoder:
        """See `fae_jax.autoencoder.kinds.make_feature_decoder`."""
        return cls()

    @nn.compact
    def __call__(self, latents: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        return latents.astype(jnp.float32)
