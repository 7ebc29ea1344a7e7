"""Compressors, from features x (n tokens of d channels) to a latent posterior: the paper's and its ablation's.

attention: one self-attention layer and one linear layer, with biased linears Q, K, V, S from d to h·e channels

    a = softmax(Q(x) K(x)ᵀ / √e) V(x)        per head, no output projection    (1)
    (μ, log σ²) = W act(S(x) + a) + b                                          (2)

With d = 1536, 24 heads of 256 and 32 latent channels this has the 38,166,592 parameters of the paper (38.17 M).

linear:      (μ, log σ²) = W x + b                                             (3)
identity:    μ = x, σ = 0: the latent is as wide as the features               (4)
transformer: h = x, or W x + b where the blocks are not as wide as the features; h ← Block(h) k times (RMSNorm, rotary
attention, SwiGLU), as the feature decoder has them;  (μ, log σ²) = W' RMSNorm(h) + b'                          (5)
pooling:     (μ, log σ²) of p × p tokens = W (their features, joined) + b: as many numbers as p² latents hold, which
they are laid out as, row by row. A generator with patches of p sees each pooled token as one                    (6)
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float

from fae_jax.autoencoder.posterior import GAUSSIAN, Posterior, PosteriorKind, certain
from fae_jax.nn import blocks
from fae_jax.nn.attention import attention, split_width
from fae_jax.nn.blocks import Block, stack
from fae_jax.nn.compute import ComputeSection
from fae_jax.nn.dense import Dense
from fae_jax.nn.embeddings import check_tokens, rotary_table
from fae_jax.nn.norms import make_norm
from fae_jax.section import at_least, one_of, option

ACTIVATIONS = {"silu": nn.silu, **blocks.ACTIVATIONS, "none": lambda x: x}


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionSection:
    """Sizes of the attention compressor."""

    heads: int = option(24, "attention heads", at_least(1))
    head_width: int = option(256, "channels per head", at_least(1))
    activation: str = option(
        "silu",
        "after skip + attention: silu, gelu (exact), gelu_tanh, relu, none, …",
        one_of(*ACTIVATIONS),
    )


class Compressor(nn.Module):
    """Equations (1) and (2): features (b, n, d) → posterior over (b, n, latent_width).

    Attributes:
      latent_width: channels of the latent (32 in the paper).
      heads, head_width: 24 and 256 in the paper.
      activation: one of `ACTIVATIONS`.
      posterior: what the last linear's numbers mean.
      dtype: dtype of the matrix products; the last, to the posterior, is in float32.
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
        return self.posterior.of(hidden, self.latent_width)


class LinearCompressor(nn.Module):
    """Equation (3): features (b, n, d) → posterior over (b, n, latent_width).

    Attributes:
      latent_width: channels of the latent.
      posterior: what the linear's numbers mean.
    """

    latent_width: int
    posterior: PosteriorKind = GAUSSIAN

    @classmethod
    def build(cls, section: Any, *, grid: tuple[int, int], width: int, compute: ComputeSection) -> LinearCompressor:
        """See `fae_jax.autoencoder.kinds.make_compressor`."""
        return cls(section.latent_width, section.posterior)

    @nn.compact
    def __call__(self, features: Float[Array, "b n d"]) -> Posterior:
        return self.posterior.of(features, self.latent_width)


class IdentityCompressor(nn.Module):
    """Equation (4), without parameters: features (b, n, latent_width) → themselves, float32."""

    latent_width: int

    @classmethod
    def build(cls, section: Any, *, grid: tuple[int, int], width: int, compute: ComputeSection) -> IdentityCompressor:
        """See `fae_jax.autoencoder.kinds.make_compressor`; the latent is as wide as the features in any case."""
        return cls(width)

    @nn.compact
    def __call__(self, features: Float[Array, "b n d"]) -> Posterior:
        return certain(features.astype(jnp.float32))


@dataclasses.dataclass(frozen=True, kw_only=True)
class PoolingSection:
    """Sizes of the pooling compressor."""

    patch: int = option(2, "rows and columns of tokens that are pooled into one; the generator's patch", at_least(1))


class PoolingCompressor(nn.Module):
    """Equation (6): features (b, n, d) → posterior over (b, n, latent_width), n/p² pooled tokens of p² latent_width.

    Attributes:
      latent_width: channels of the latent.
      grid: rows and columns of tokens, n = rows · columns.
      patch: p.
      posterior: what the linear's numbers mean.
    """

    latent_width: int
    grid: tuple[int, int]
    patch: int
    posterior: PosteriorKind = GAUSSIAN

    Section = PoolingSection

    @classmethod
    def build(cls, section: Any, *, grid: tuple[int, int], width: int, compute: ComputeSection) -> PoolingCompressor:
        """See `fae_jax.autoencoder.kinds.make_compressor`.

        Raises:
          ValueError: the grid cannot be pooled so.
        """
        patch = section.pooling.patch
        if grid[0] % patch or grid[1] % patch:
            raise ValueError(
                f"compressor.pooling.patch={patch} must divide the grid of features, {grid[0]}×{grid[1]}"
            )
        return cls(section.latent_width, grid, patch, section.posterior)

    @nn.compact
    def __call__(self, features: Float[Array, "b n d"]) -> Posterior:
        """See the class.

        Raises:
          ValueError: the number of tokens is not the grid's.
        """
        check_tokens(features.shape[1], self.grid)
        cells = {"p": self.patch, "q": self.patch, "x": self.grid[1] // self.patch}
        joined = rearrange(features, "b (y p x q) d -> b (y x) (p q d)", **cells)
        pooled = self.posterior.of(joined, self.patch**2 * self.latent_width)
        return Posterior(*(rearrange(part, "b (y x) (p q c) -> b (y p x q) c", **cells) for part in pooled))


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformerSection:
    """Sizes of the transformer compressor, and of the feature decoder."""

    depth: int = option(6, "blocks", at_least(1))
    width: int = option(0, "channels of the blocks; 0 = the encoder's", at_least(0))
    heads: int = option(24, "attention heads", at_least(1))
    hidden: int = option(4096, "inner width of the SwiGLU", at_least(1))


class TransformerCompressor(nn.Module):
    """Equation (5): features (b, n, d) → posterior over (b, n, latent_width).

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
        x, _ = stack(block, self.depth, x, rotary_table(head_width, self.grid), scan=self.scan, remat=self.remat)
        x = make_norm("rms", name="last_norm")(x)
        return self.posterior.of(x, self.latent_width)
