"""Text towers of CLIP, SigLIP and SigLIP2, the T5 encoder, and sentence encoders of BERT's kind.

CLIP and SigLIP (embedding h₀ = E[token] + P[place], pre-norm blocks, last norm):

    CLIP    causal attention;  pooled = W h[first end token]                 (1)
    SigLIP  full attention;    pooled = W h[last place] + b                  (2)

T5 (no positions in h₀, RMSNorm, no biases, attention scores not divided by √e): every block adds the same learned
bias B[bucket(j − i)] to the score of query i and key j,

    bucket(r) = 16·[r > 0] + |r|                                 for |r| < 8
                16·[r > 0] + min(15, 8 + ⌊8 ln(|r|/8) / ln(128/8)⌋)   else   (3)

for 32 buckets and a largest distance of 128. Padding is masked as a key.

BERT (h₀ = LayerNorm(E[token] + P[place] + S[0]), norms behind the branches, no last one; padding masked as a key):

    h ← LayerNorm(h + Attention(h));  h ← LayerNorm(h + FeedForward(h))       (4)
    pooled = m / ‖m‖,  m = the mean of h over the tokens that are not padding (5)

(5) is what sentence encoders such as all-MiniLM-L6-v2 were trained with.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from fae_jax.nn.attention import SelfAttention, split_width
from fae_jax.nn.blocks import Block, FeedForward, stack
from fae_jax.nn.dense import Dense
from fae_jax.nn.norms import make_norm


class TextOutput(NamedTuple):
    """Tokens after the last norm, (b, n, d), and the vector an image's is compared with, (b, p), or None."""

    tokens: Array
    pooled: Array | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextConfig:
    """A text tower of CLIP or SigLIP.

    Attributes:
      vocabulary, length: number of tokens known, and how many a caption may have.
      width, depth, heads, hidden: shape of the transformer.
      feed_forward, norm_epsilon: as in `ViTConfig`.
      pooling: `end` (equation 1) or `last` (equation 2).
      end_token: the token that ends a caption; None: the largest one in it (CLIP's first way).
      projection: width of the pooled vector; 0 for no projection.
    """

    vocabulary: int
    length: int
    width: int
    depth: int
    heads: int
    hidden: int
    feed_forward: str
    norm_epsilon: float
    pooling: str
    end_token: int | None = None
    projection: int = 0


def fitting(tokens: Int[Array, "b n"], limit: int) -> int:
    """n, which a tower's table of positions has to reach.

    Raises:
      ValueError: there are more tokens than its `limit`.
    """
    length = tokens.shape[1]
    if length > limit:
        raise ValueError(f"a caption of {length} tokens does not fit this text tower; it takes {limit}")
    return length


class TextTower(nn.Module):
    """Equations (1) and (2): token numbers (b, n), n ≤ config.length → `TextOutput`, float32."""

    config: TextConfig
    dtype: jnp.dtype = jnp.float32
    kernel: str = "auto"
    scan: bool = True
    remat: str = "none"

    @nn.compact
    def __call__(self, tokens: Int[Array, "b n"], mask: Bool[Array, "b n"] | None = None) -> TextOutput:
        """`mask` marks the tokens that may be attended to; None for all.

        Raises:
          ValueError: there are more tokens than places.
        """
        config, small = self.config, nn.initializers.normal(0.02)
        length = fitting(tokens, config.length)
        table = self.param("token_table", small, (config.vocabulary, config.width))
        places = self.param("position_table", small, (config.length, config.width))
        x = (jnp.take(table, tokens, axis=0) + places[:length]).astype(jnp.float32)
        allowed = None if mask is None else mask[:, None, None, :]
        if config.pooling == "end":
            causal = np.tril(np.ones((1, 1, length, length), bool))
            allowed = jnp.asarray(causal) if allowed is None else allowed & causal
        block = functools.partial(
            Block,
            config.heads,
            config.width // config.heads,
            config.hidden,
            norm="layer",
            norm_epsilon=config.norm_epsilon,
            feed_forward=config.feed_forward,
            dtype=self.dtype,
            kernel=self.kernel,
        )
        x, _ = stack(block, config.depth, x, None, allowed, scan=self.scan, remat=self.remat)
        x = make_norm("layer", epsilon=config.norm_epsilon, name="last_norm")(x)
        if config.pooling == "last":
            place = jnp.full(len(tokens), length - 1)
        else:
            ends = tokens if config.end_token is None else (tokens == config.end_token)
            place = jnp.argmax(ends, axis=1)
        pooled = jnp.take_along_axis(x, place[:, None, None], axis=1)[:, 0]
        if config.projection:
            biased = config.pooling == "last"
            pooled = Dense(config.projection, use_bias=biased, name="projection_head")(pooled)
        return TextOutput(x, pooled)


@dataclasses.dataclass(frozen=True, kw_only=True)
class T5Config:
    """A T5 encoder.

    Attributes:
      vocabulary: number of tokens known.
      width, depth, heads, head_width, hidden: shape of the transformer; heads · head_width need not be the width.
      feed_forward: `relu` (T5), or `geglu_tanh` (T5 1.1, flan-t5).
      buckets, distance: number of buckets and largest distance of equation (3).
    """

    vocabulary: int
    width: int
    depth: int
    heads: int
    head_width: int
    hidden: int
    feed_forward: str
    norm_epsilon: float = 1e-6
    buckets: int = 32
    distance: int = 128


def relative_buckets(length: int, buckets: int, distance: int) -> Int[np.ndarray, "n n"]:
    """Equation (3) for query i (rows) and key j (columns)."""
    offset = np.arange(length)[None] - np.arange(length)[:, None]
    half = buckets // 2
    exact = half // 2
    size = np.abs(offset)
    # float32 throughout, as the reference computes it: the floor is sensitive at powers of two
    ratio = np.log(np.maximum(size, 1).astype(np.float32) / np.float32(exact)) / np.float32(np.log(distance / exact))
    far = np.minimum(exact + (ratio * np.float32(half - exact)).astype(np.int32), half - 1)
    return (half * (offset > 0) + np.where(size < exact, size, far)).astype(np.int32)


class T5Encoder(nn.Module):
    """Token numbers (b, n) of any length and which of them are not padding → `TextOutput` without a pooled vector."""

    config: T5Config
    dtype: jnp.dtype = jnp.float32
    scan: bool = True
    remat: str = "none"

    @nn.compact
    def __call__(self, tokens: Int[Array, "b n"], mask: Bool[Array, "b n"] | None = None) -> TextOutput:
        config = self.config
        table = self.param("token_table", nn.initializers.normal(1.0), (config.vocabulary, config.width))
        rows = self.param("relative_bias", nn.initializers.normal(0.1), (config.buckets, config.heads))
        chosen = relative_buckets(tokens.shape[1], config.buckets, config.distance)
        bias = jnp.moveaxis(jnp.take(rows, chosen, axis=0), -1, 0)[None].astype(jnp.float32)
        allowed = None if mask is None else mask[:, None, None, :]
        block = functools.partial(
            Block,
            config.heads,
            config.head_width,
            config.hidden,
            norm="rms",
            norm_epsilon=config.norm_epsilon,
            feed_forward=config.feed_forward,
            qkv_bias=False,
            out_bias=False,
            feed_forward_bias=False,
            attention_scale=1.0,
            dtype=self.dtype,
            kernel="xla",
        )
        x = jnp.take(table, tokens, axis=0).astype(jnp.float32)
        x, _ = stack(block, config.depth, x, None, allowed, bias, scan=self.scan, remat=self.remat)
        return TextOutput(make_norm("rms", epsilon=config.norm_epsilon, name="last_norm")(x))


@dataclasses.dataclass(frozen=True, kw_only=True)
class BertConfig:
    """A sentence encoder of BERT's kind: numbers of tokens, places and segments known, and its transformer."""

    vocabulary: int
    length: int
    segments: int
    width: int
    depth: int
    heads: int
    hidden: int
    feed_forward: str
    norm_epsilon: float = 1e-12


class BertBlock(nn.Module):
    """Equation (4): (b, n, d), `mask` as in `SelfAttention`."""

    config: BertConfig
    dtype: jnp.dtype
    kernel: str

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"], mask: Array | None) -> Float[Array, "b n d"]:
        config = self.config
        norm = functools.partial(make_norm, "layer", epsilon=config.norm_epsilon)
        head_width = split_width(config.width, config.heads)
        attend = SelfAttention(config.heads, head_width, dtype=self.dtype, kernel=self.kernel, name="attention")
        feed = FeedForward(config.feed_forward, config.hidden, dtype=self.dtype, name="feed_forward")
        x = norm(name="attention_norm")(x + attend(x.astype(self.dtype), None, mask))
        return norm(name="feed_forward_norm")(x + feed(x.astype(self.dtype)))


class BertEncoder(nn.Module):
    """Equations (4) and (5): token numbers (b, n), n ≤ config.length, and which are not padding → `TextOutput`."""

    config: BertConfig
    dtype: jnp.dtype = jnp.float32
    kernel: str = "auto"
    scan: bool = True
    remat: str = "none"

    @nn.compact
    def __call__(self, tokens: Int[Array, "b n"], mask: Bool[Array, "b n"] | None = None) -> TextOutput:
        """`mask` marks the tokens that may be attended to and that are pooled; None for all.

        Raises:
          ValueError: there are more tokens than places.
        """
        config, small = self.config, nn.initializers.normal(0.02)
        length = fitting(tokens, config.length)
        table = self.param("token_table", small, (config.vocabulary, config.width))
        places = self.param("position_table", small, (config.length, config.width))
        segments = self.param("segment_table", small, (config.segments, config.width))
        x = (jnp.take(table, tokens, axis=0) + places[:length] + segments[0]).astype(jnp.float32)
        x = make_norm("layer", epsilon=config.norm_epsilon, name="first_norm")(x)
        allowed = None if mask is None else mask[:, None, None, :]
        block = functools.partial(BertBlock, config, self.dtype, self.kernel)
        x, _ = stack(block, config.depth, x, allowed, scan=self.scan, remat=self.remat)
        mean = masked_mean(x, mask)
        return TextOutput(x, mean / jnp.maximum(jnp.linalg.norm(mean, axis=-1, keepdims=True), 1e-12))


def masked_mean(tokens: Float[Array, "b n d"], mask: Bool[Array, "b n"] | None) -> Float[Array, "b d"]:
    """The mean over the tokens that `mask` marks, or over all; zero where it marks none."""
    if mask is None:
        return jnp.mean(tokens, axis=1)
    total = jnp.sum(jnp.where(mask[..., None], tokens, 0), axis=1)
    return total / jnp.maximum(jnp.sum(mask, axis=1, keepdims=True), 1)
