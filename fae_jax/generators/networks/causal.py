"""A causal transformer that says how each token of a latent is shifted and scaled, given those before it.

It reads p tokens that tell the condition, a class's one or a text's own, then a learned beginning, then the latent's
tokens but the last:

    (c_1, …, c_p, beginning, u_1, …, u_{n−1})  →  (μ_1, a_1), …, (μ_n, a_n)                       (1)

through pre-norm blocks (LayerNorm; GELU) whose attention looks back only, and never at a text's padding, and a last
RMSNorm; told an empty text, it sees the beginning alone. Both results are softly
clipped to (−k, k), and a becomes a positive scale that is 1 at a = 0 (STARFlow, arXiv 2506.06276, and its code):

    x ↦ k tanh(x / k),   α = softplus(a + log(e − 1))                                              (2)

A latent that comes token by token is read with a cache of keys and values, so that no token is read twice.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Bool, Float

from fae_jax.nn.attention import attention, split_width
from fae_jax.nn.blocks import REMAT_POLICIES, FeedForward
from fae_jax.nn.dense import Dense
from fae_jax.nn.embeddings import LabelEmbedding, Rotary, apply_rotary, rotary_table
from fae_jax.nn.norms import make_norm
from fae_jax.nn.tags import tag

Cache = tuple[Float[Array, "depth b m h e"], Float[Array, "depth b m h e"]]  # keys and values of each block
SOFTPLUS_IS_ONE = math.log(math.e - 1)


class CausalAttention(nn.Module):
    """Attention of new tokens (b, k, d) to themselves, or to all that the cache holds, as far as `mask` lets them."""

    heads: int
    dtype: jnp.dtype
    kernel: str

    @nn.compact
    def __call__(
        self, x: Float[Array, "b k d"], cache: Any, start: Array, rotary: Rotary, mask: Bool[Array, "z 1 k m"]
    ) -> tuple[Float[Array, "b k d"], Any]:
        width = x.shape[-1]
        linear = functools.partial(Dense, dtype=self.dtype, kernel_init=nn.initializers.xavier_uniform())
        joint = linear((3, self.heads, split_width(width, self.heads)), name="qkv")
        query, key, value = (part[:, :, 0] for part in jnp.split(tag(joint(x), "qkv"), 3, axis=2))
        query, key = apply_rotary(query, *rotary), apply_rotary(key, *rotary)
        if cache is not None:
            key, value = cache = tuple(
                jax.lax.dynamic_update_slice_in_dim(kept, new.astype(kept.dtype), start, axis=1)
                for kept, new in zip(cache, (key, value), strict=True)
            )
        mixed = tag(attention(query, key, value, mask=mask, kernel=self.kernel), "attended")
        return linear(width, name="out")(rearrange(mixed, "b k h e -> b k (h e)")), cache


class CausalBlock(nn.Module):
    """A pre-norm block (LayerNorm, ε = 10⁻⁵; GELU) with a cache: (b, k, d) → (b, k, d) and the cache."""

    heads: int
    hidden: int
    dtype: jnp.dtype
    kernel: str

    @nn.compact
    def __call__(
        self, x: Float[Array, "b k d"], cache: Any, start: Array, rotary: Rotary, mask: Bool[Array, "z 1 k m"]
    ) -> tuple[Float[Array, "b k d"], Any]:
        def norm(name: str, h: Array) -> Array:
            return make_norm("layer", epsilon=1e-5, name=name)(h).astype(self.dtype)

        attend = CausalAttention(self.heads, self.dtype, self.kernel, name="attention")
        mixed, cache = attend(norm("attention_norm", x), cache, start, rotary, mask)
        x = x + mixed.astype(x.dtype)
        feed = FeedForward("gelu", self.hidden, dtype=self.dtype, name="feed_forward")
        fed = feed(tag(norm("feed_forward_norm", x), "feed_forward_input"))
        return tag(x + fed.astype(x.dtype), "stream"), cache


class CausalTransformer(nn.Module):
    """Equations (1) and (2).

    Attributes:
      grid: rows and columns of the latent; its tokens come row by row.
      channels: of the latent.
      width, depth, heads, hidden: shape of the transformer.
      conditioned: whether it is told the condition.
      classes: number of classes; the label `classes` means "no class".
      clip: k of equation (2).
      dtype, residual: dtypes of the matrix products and of the residual stream; all else is float32.
    """

    grid: tuple[int, int]
    channels: int
    width: int
    depth: int
    heads: int
    hidden: int
    conditioned: bool
    classes: int
    clip: float
    dtype: jnp.dtype = jnp.float32
    residual: jnp.dtype = jnp.float32
    kernel: str = "auto"
    scan: bool = True
    remat: str = "none"

    def setup(self) -> None:
        remat, body = REMAT_POLICIES[self.remat], CausalBlock
        if self.remat != "none":
            body = nn.remat(CausalBlock, policy=remat, prevent_cse=not self.scan)
        loop = nn.scan(
            body,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(0, nn.broadcast, nn.broadcast, nn.broadcast),
            length=self.depth,
            unroll=1 if self.scan else self.depth,
        )
        self.blocks = loop(self.heads, self.hidden, self.dtype, self.kernel)
        self.embed = Dense(self.width, dtype=self.dtype, kernel_init=nn.initializers.xavier_uniform())
        self.beginning = self.param("beginning", nn.initializers.normal(1.0), (1, 1, self.channels))
        self.last_norm = make_norm("rms")
        self.to_affine = Dense(2 * self.channels, kernel_init=nn.initializers.zeros)
        if self.conditioned:
            self.label = LabelEmbedding(self.classes, self.width)
            self.text = Dense(self.width, dtype=self.dtype, kernel_init=nn.initializers.xavier_uniform())

    def _told(self, condition: Any, count: int) -> tuple[Float[Array, "b p d"], Bool[Array, "z m"]]:
        """The tokens that tell `count` latents' conditions, a label or a text as `Text.encode` gives it, and which
        tokens of the sequence (1) are no padding."""
        text = self.conditioned and isinstance(condition, Mapping)
        if text:
            told = self.text(condition["tokens"])
        else:
            told = self.label(condition)[:, None] if self.conditioned else jnp.zeros((count, 0, self.width))
        real = condition["mask"] if text else jnp.ones((1, told.shape[1]), bool)
        seen = jnp.pad(real, ((0, 0), (0, self.grid[0] * self.grid[1])), constant_values=True)
        return told.astype(self.residual), seen

    def _affine(self, x: Float[Array, "b k d"]) -> tuple[Float[Array, "b k c"], Float[Array, "b k c"]]:
        """μ and α of equation (2), float32."""
        clipped = self.clip * jnp.tanh(self.to_affine(self.last_norm(x)).astype(jnp.float32) / self.clip)
        scale, shift = jnp.split(clipped, 2, axis=-1)
        return shift, jax.nn.softplus(scale + SOFTPLUS_IS_ONE)

    def _read(
        self, x: Float[Array, "b k d"], cache: Any, start: Array | int, seen: Bool[Array, "z m"]
    ) -> tuple[Array, Any]:
        """The blocks over tokens that stand at `start`, …, `start` + k − 1 of the sequence (1)."""
        new = x.shape[1]
        mask = jnp.arange(seen.shape[1]) <= (start + jnp.arange(new))[:, None]
        mask = mask[None, None] & seen[:, None, None]
        tables = rotary_table(split_width(self.width, self.heads), self.grid, prefix=self._prefix(seen))
        cosine, sine = (jax.lax.dynamic_slice_in_dim(jnp.asarray(table), start, new) for table in tables)
        x = tag(x.astype(self.residual), "stream")
        return self.blocks(x, cache, jnp.asarray(start), (cosine, sine), mask)

    def _prefix(self, seen: Array) -> int:
        """p of the sequence (1)."""
        return seen.shape[1] - self.grid[0] * self.grid[1]

    def __call__(
        self, u: Float[Array, "b n c"], condition: Any
    ) -> tuple[Float[Array, "b n c"], Float[Array, "b n c"]]:
        """Shift and scale of all tokens of a latent, in one pass: those of token i depend on the tokens before it."""
        beginning = jnp.broadcast_to(self.beginning, (u.shape[0], 1, u.shape[-1])).astype(u.dtype)
        x = self.embed(jnp.concatenate([beginning, u[:, :-1]], axis=1)).astype(self.residual)
        told, seen = self._told(condition, u.shape[0])
        x, _ = self._read(jnp.concatenate([told, x], axis=1), None, 0, seen)
        return self._affine(x[:, told.shape[1] :])

    def begin(self, condition: Any, count: int) -> tuple[Float[Array, "b 1 c"], Cache, Bool[Array, "z m"]]:
        """The beginning of `count` latents, a cache that holds their conditions, and which tokens of the sequence (1)
        are seen."""
        told, seen = self._told(condition, count)
        shape = (self.depth, count, seen.shape[1], self.heads, split_width(self.width, self.heads))
        cache: Any = (jnp.zeros(shape, self.dtype), jnp.zeros(shape, self.dtype))
        if told.shape[1]:
            _, cache = self._read(told, cache, 0, seen)
        return jnp.broadcast_to(self.beginning, (count, 1, self.channels)), cache, seen

    def next(
        self, u: Float[Array, "b k c"], cache: Cache, place: Array | int, seen: Bool[Array, "z m"]
    ) -> tuple[tuple[Float[Array, "b k c"], Float[Array, "b k c"]], Cache]:
        """Shift and scale of tokens `place`, …, `place` + k − 1 from the tokens one place before them, and the cache
        with those."""
        x, cache = self._read(self.embed(u), cache, self._prefix(seen) + place, seen)
        return self._affine(x), cache
