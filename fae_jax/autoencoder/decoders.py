"""From latents back into the encoder's own feature space, and from features to pixels, one patch per token.

Feature decoder:

    h = W z + b + P;   h ← Block(h) six times (RMSNorm, rotary attention, SwiGLU);   x̂ = RMSNorm(h) or h

Blocks are as wide as the features and there is no output linear, unless `inner_width` says otherwise: then a linear
leads from the blocks' channels to the features', before the last norm. For 1536 channels, 24 heads and a SwiGLU of
4096: 170,428,416 parameters with the last norm (170.43 M in the paper) and 170,426,880 without it.

Pixel decoder, a ViT:

    h = W x + b + P;   h ← Block(h) (LayerNorm, attention, SwiGLU);   pixels = unpatchify(W' LayerNorm(h) + b')

where h may begin with a class token of its own, which is dropped before W', P may be a fixed table of sines and
cosines, and the feed-forward a GELU: what released decoders have (`fae_jax.autoencoder.released`).

With 1536 input channels, 24 blocks of 1024 channels, 16 heads, a SwiGLU of 2736 and patches of 16×16×3:
305,360,896 parameters (305.36 M in the paper).
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from fae_jax.autoencoder import compressors
from fae_jax.nn.attention import split_width
from fae_jax.nn.blocks import FEED_FORWARDS, Block, stack
from fae_jax.nn.compute import ComputeSection
from fae_jax.nn.dense import Dense
from fae_jax.nn.embeddings import PositionTable, check_tokens, rotary_table, sincos_table, unpatchify
from fae_jax.nn.norms import make_norm
from fae_jax.section import above, at_least, one_of, option

EXTENT = 16  # side of a fixed table: a finer grid has smaller steps, not larger places


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformerSection(compressors.TransformerSection):
    """Sizes of the feature decoder."""

    last_norm: bool | None = option(
        None, "end with an RMSNorm: goes with feature_norm=none, and only with it; None = accordingly"
    )


class FeatureDecoder(nn.Module):
    """Latents (b, n, c) → features (b, n, width), float32.

    Attributes:
      grid: rows and columns of tokens, n = rows · columns.
      width: channels of the encoder's features.
      depth, heads, hidden: number of blocks, heads, inner width of the SwiGLU.
      inner_width: channels of the blocks; 0 means `width`.
      dtype, residual: dtypes of the matrix products (the last is in float32) and of the residual stream.
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
        x, _ = stack(block, self.depth, x, rotary_table(head_width, self.grid), scan=self.scan, remat=self.remat)
        if inner != self.width:
            x = Dense(self.width, kernel_init=init, name="to_features")(x)
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class PixelDecoderSection:
    """Sizes of the pixel decoder."""

    width: int = option(1024, "channels", at_least(1))
    depth: int = option(24, "blocks", at_least(1))
    heads: int = option(16, "attention heads", at_least(1))
    hidden: int = option(2736, "inner width of the feed-forward", at_least(1))
    feed_forward: str = option("swiglu", f"one of {', '.join(FEED_FORWARDS)}", one_of(*FEED_FORWARDS))
    class_token: bool = option(False, "a learned token in front of the others (released decoders)")
    positions: str = option(
        "learned", "table of positions: learned, or fixed (sines and cosines over 16×16)", one_of("learned", "fixed")
    )
    norm_epsilon: float = option(1e-6, "ε of the LayerNorms", above(0))

    def check(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"heads={self.heads} must divide width={self.width}")
        if self.positions == "fixed" and self.width % 4:
            raise ValueError(f"positions='fixed' needs a width that is a multiple of 4, got {self.width}")


class PixelDecoder(nn.Module):
    """Features (b, n, d) → images (b, rows·patch, columns·patch, 3), about [−1, 1], float32, not clipped.

    Attributes:
      grid: rows and columns of tokens.
      patch: side of the square of pixels each token paints.
      width, depth, heads, hidden, feed_forward, class_token, positions, norm_epsilon: see `PixelDecoderSection`.
      dtype, residual: dtypes of the matrix products (the last is in float32) and of the residual stream.
    """

    grid: tuple[int, int]
    patch: int
    width: int
    depth: int
    heads: int
    hidden: int
    feed_forward: str = "swiglu"
    class_token: bool = False
    positions: str = "learned"
    norm_epsilon: float = 1e-6
    dtype: jnp.dtype = jnp.float32
    residual: jnp.dtype = jnp.float32
    kernel: str = "auto"
    scan: bool = True
    remat: str = "none"

    @nn.compact
    def __call__(self, features: Float[Array, "b n d"], inside: bool = False) -> Any:
        """See the class; with `inside` also what the last projection is given, (b, n, width).

        Raises:
          ValueError: the number of tokens is not the grid's, or `heads` does not divide `width`.
        """
        check_tokens(features.shape[1], self.grid)
        init = nn.initializers.xavier_uniform()
        x = Dense(self.width, dtype=self.dtype, kernel_init=init, name="embed")(features)
        x = x.astype(self.residual)
        if self.positions == "fixed":
            x = x + sincos_table(self.width, self.grid, EXTENT).astype(self.residual)
        else:
            x = PositionTable(self.grid[0] * self.grid[1], name="position")(x)
        if self.class_token:
            token = self.param("class_token", nn.initializers.truncated_normal(0.02), (1, self.width))
            first = jnp.broadcast_to(token.astype(x.dtype), (len(x), 1, self.width))
            x = jnp.concatenate([first, x], axis=1)
        head_width = split_width(self.width, self.heads)
        block = functools.partial(
            Block,
            self.heads,
            head_width,
            self.hidden,
            norm="layer",
            norm_epsilon=self.norm_epsilon,
            feed_forward=self.feed_forward,
            dtype=self.dtype,
            kernel=self.kernel,
        )
        x, _ = stack(block, self.depth, x, None, scan=self.scan, remat=self.remat)
        x = make_norm("layer", epsilon=self.norm_epsilon, name="last_norm")(x[:, int(self.class_token) :])
        # in float32: bfloat16 has 8 bits, and so would every pixel
        pixels = Dense(self.patch * self.patch * 3, kernel_init=init, name="to_pixels")(x)
        images = unpatchify(pixels, self.grid, self.patch)
        return (images, x) if inside else images
