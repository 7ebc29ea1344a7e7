"""The pixel decoder: a ViT from features to pixels, one patch per token.

    h = W x + b + P;   h ← Block(h) (LayerNorm, attention, SwiGLU);   pixels = unpatchify(W' LayerNorm(h) + b')

With 1536 input channels, 24 blocks of 1024 channels, 16 heads, a SwiGLU of 2736 and patches of 16×16×3:
305,360,896 parameters (305.36 M in the paper).
"""

from __future__ import annotations

import dataclasses
import functools

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from fae_jax.nn.attention import split_width
from fae_jax.nn.blocks import Block, make_norm, stack
from fae_jax.nn.dense import Dense
from fae_jax.nn.embeddings import PositionTable, check_tokens, unpatchify
from fae_jax.section import at_least, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class PixelDecoderSection:
    """Sizes of the pixel decoder."""

    width: int = option(1024, "channels", at_least(1))
    depth: int = option(24, "blocks", at_least(1))
    heads: int = option(16, "attention heads", at_least(1))
    hidden: int = option(2736, "inner width of the SwiGLU", at_least(1))

    def check(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"heads={self.heads} must divide width={self.width}")


class PixelDecoder(nn.Module):
    """Features (b, n, d) → images (b, rows·patch, columns·patch, 3), about [−1, 1], float32, not clipped.

    Attributes:
      grid: rows and columns of tokens.
      patch: side of the square of pixels each token paints.
      width, depth, heads, hidden: shape of the ViT.
      dtype, residual: dtypes of the matrix products and of the residual stream.
    """

    grid: tuple[int, int]
    patch: int
    width: int
    depth: int
    heads: int
    hidden: int
    dtype: jnp.dtype = jnp.float32
    residual: jnp.dtype = jnp.float32
    kernel: str = "auto"
    scan: bool = True
    remat: str = "none"

    @nn.compact
    def __call__(self, features: Float[Array, "b n d"]) -> Float[Array, "b height width 3"]:
        """See the class.

        Raises:
          ValueError: the number of tokens is not the grid's, or `heads` does not divide `width`.
        """
        check_tokens(features.shape[1], self.grid)
        init = nn.initializers.xavier_uniform()
        x = Dense(self.width, dtype=self.dtype, kernel_init=init, name="embed")(features)
        x = PositionTable(self.grid[0] * self.grid[1], name="position")(x.astype(self.residual))
        head_width = split_width(self.width, self.heads)
        block = functools.partial(
            Block, self.heads, head_width, self.hidden, norm="layer", dtype=self.dtype, kernel=self.kernel
        )
        x = stack(block, self.depth, x, None, scan=self.scan, remat=self.remat)
        x = make_norm("layer", name="last_norm")(x).astype(self.dtype)
        pixels = Dense(self.patch * self.patch * 3, dtype=self.dtype, kernel_init=init, name="to_pixels")(x)
        return unpatchify(pixels.astype(jnp.float32), self.grid, self.patch)
