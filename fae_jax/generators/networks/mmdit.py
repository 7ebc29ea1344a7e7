"""The multimodal diffusion transformer of Stable Diffusion 3 (MMDiT, arXiv 2403.03206): text and image tokens in two
streams with weights of their own, which meet in one attention.

With c = Time(t) + Pooled, each block computes six vectors from silu(c) for the image x and six for the text y:

    (a, b) = Attention over [y', x'] together,   y' = (1 + s₁) Norm(y) + b₁,  x' likewise      (1)
    x ← x + g₁ · W a_x;   x ← x + g₂ · FeedForward((1 + s₂) Norm(x) + b₂);   y likewise        (2)

Padded text is masked as a key in (1), so that nothing depends on it. In the last block the text only feeds the
attention: two vectors, no projection, no feed-forward. Image tokens are rotated by their places, text is not.

`conditioning` says what c is, and how the network ends in W ((1 + s) Norm(x) + b):

    tokens    Pooled = W₁ · mean of the embedded text tokens;   (b, s) = a table + c (PixArt-α)         (3)
    pooled    Pooled = W₂ silu(W₁ · the tower's vector);        (b, s) = W silu(c) (SD3)                (4)

Counts, text 2,048 wide (flan-t5-xl), biases everywhere but in the SwiGLU, whose inner width is 8/3 of the width,
rounded up to 256; the paper prints 603.46 M and 2,017.84 M without saying how they are made up:

                       blocks         text, pooled   time        latents, table of (3)   together        fixed table
    16 × 1024, z 32      598,797,312      3,147,776  1,312,768                  68,640     603,326,496       262,144
    24 × 1536, z 64    2,008,490,496      5,508,096  2,755,584                 201,280   2,016,955,456       884,736

With the fixed position table, which the paper counts in its DiT, 603,588,640 and 2,017,840,192.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Bool, Float

from fae_jax.conditions import Condition
from fae_jax.encoders.text import masked_mean
from fae_jax.generators.networks.dit import modulate
from fae_jax.nn.attention import attention, split_width
from fae_jax.nn.blocks import REMAT_POLICIES, FeedForward, stack
from fae_jax.nn.compute import ComputeSection
from fae_jax.nn.dense import Dense
from fae_jax.nn.embeddings import Rotary, TimeEmbedding, apply_rotary, check_tokens, rotary_table, sincos_table
from fae_jax.nn.norms import NORMS, make_norm
from fae_jax.nn.tags import tag
from fae_jax.section import as_dict, at_least, one_of, option


class MMDiTBlock(nn.Module):
    """Equations (1) and (2): text and image tokens, (b, m + n, d), text first; `last` returns the image's alone."""

    heads: int
    hidden: int
    norm: str
    feed_forward: str
    feed_forward_bias: bool
    qk_norm: bool
    text: int
    last: bool
    dtype: jnp.dtype
    kernel: str

    @nn.compact
    def __call__(
        self,
        tokens: Float[Array, "b k d"],
        condition: Float[Array, "b d"],
        mask: Bool[Array, "b 1 1 k"],
        rotary: Rotary | None,
    ) -> Float[Array, "b j d"]:
        width, streams = tokens.shape[-1], {"text": tokens[:, : self.text], "image": tokens[:, self.text :]}
        zeros = nn.initializers.zeros
        vectors, joint = {}, []
        for name, x in streams.items():
            parts = 2 if self.last and name == "text" else 6
            modulation = Dense(parts * width, kernel_init=zeros, name=f"{name}_modulation")(nn.silu(condition))
            vectors[name] = jnp.split(tag(modulation, "modulation"), parts, axis=-1)
            normed = self._norm(f"{name}_attention_norm", x, *vectors[name][:2])
            joint.append(self._projected(name, normed))
        query, key, value = (jnp.concatenate(parts, axis=1) for parts in zip(*joint, strict=True))
        if rotary is not None:
            query, key = apply_rotary(query, *rotary), apply_rotary(key, *rotary)
        mixed = tag(attention(query, key, value, mask=mask, kernel=self.kernel), "attended")
        mixed = rearrange(mixed, "b k h e -> b k (h e)")
        attended = {"text": mixed[:, : self.text], "image": mixed[:, self.text :]}
        done = [
            self._rest(name, x, attended[name], *vectors[name][2:])
            for name, x in streams.items()
            if len(vectors[name]) == 6
        ]
        return jnp.concatenate(done, axis=1)

    def _norm(self, name: str, x: Array, shift: Array, scale: Array) -> Array:
        return modulate(make_norm(self.norm, affine=False, name=name)(x), shift, scale).astype(self.dtype)

    def _projected(self, name: str, normed: Array) -> list[Array]:
        """Queries, keys and values of a stream, (b, n, h, e)."""
        head_width, init = split_width(normed.shape[-1], self.heads), nn.initializers.xavier_uniform()
        linear = Dense((3, self.heads, head_width), dtype=self.dtype, kernel_init=init, name=f"{name}_qkv")
        query, key, value = (part[:, :, 0] for part in jnp.split(tag(linear(normed), "qkv"), 3, axis=2))
        if self.qk_norm:
            query, key = (
                make_norm("rms", name=f"{name}_{which}_norm")(x).astype(self.dtype)
                for which, x in (("query", query), ("key", key))
            )
        return [query, key, value]

    def _rest(
        self, name: str, x: Array, attended: Array, gate: Array, shift: Array, scale: Array, second_gate: Array
    ) -> Array:
        """Equation (2) of a stream."""
        width, init = x.shape[-1], nn.initializers.xavier_uniform()
        out = Dense(width, dtype=self.dtype, kernel_init=init, name=f"{name}_out")
        feed = FeedForward(
            self.feed_forward, self.hidden, dtype=self.dtype, bias=self.feed_forward_bias, name=f"{name}_feed_forward"
        )
        x = x + (gate[:, None] * out(attended)).astype(x.dtype)
        normed = tag(self._norm(f"{name}_feed_forward_norm", x, shift, scale), "feed_forward_input")
        return x + (second_gate[:, None] * feed(normed)).astype(x.dtype)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MMDiTSection:
    """Sizes and switches of the MMDiT."""

    width: int = option(1024, "channels", at_least(1))
    depth: int = option(16, "blocks", at_least(2))
    heads: int = option(16, "attention heads", at_least(1))
    hidden: int = option(2816, "inner width of the feed-forwards", at_least(1))
    norm: str = option("rms", "rms or layer (SD3), without weights of its own", one_of(*NORMS))
    feed_forward: str = option("swiglu", "swiglu, gelu_tanh (SD3) or gelu", one_of("swiglu", "gelu", "gelu_tanh"))
    feed_forward_bias: bool = option(False, "biases in the feed-forwards (SD3)")
    qk_norm: bool = option(False, "normalise queries and keys by RMSNorm (SD3.5)")
    rotary: bool = option(True, "rotary positions of image tokens beside the fixed table (SD3: the table alone)")
    conditioning: str = option(
        "tokens",
        "what modulates beside time: the mean text token, or the tower's pooled vector as in SD3",
        one_of("tokens", "pooled"),
    )
    time_scale: float = option(1.0, "factor of times before they are embedded (SD3: 1000)")
    middle: int = option(
        0, "block after which a second head reads a velocity, for internal guidance; 0 = none", at_least(0)
    )

    def check(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"heads={self.heads} must divide width={self.width}")
        if self.middle >= self.depth:
            raise ValueError(f"middle={self.middle} must be below depth={self.depth}")


class MMDiT(nn.Module):
    """velocity(z, t, text): noisy latents (b, n, c), times (b,) in [0, 1] (1 = noise), a text as
    `fae_jax.conditions.text.Text.encode` gives it → (b, n, c) float32.

    Attributes:
      grid: rows and columns of image tokens.
      width, …, middle: see `MMDiTSection`.
      dtype, residual: dtypes of the matrix products and of the residual streams; all else is float32.
    """

    grid: tuple[int, int]
    width: int
    depth: int
    heads: int
    hidden: int
    norm: str = "rms"
    feed_forward: str = "swiglu"
    feed_forward_bias: bool = False
    qk_norm: bool = False
    rotary: bool = True
    conditioning: str = "tokens"
    time_scale: float = 1.0
    middle: int = 0
    dtype: jnp.dtype = jnp.float32
    residual: jnp.dtype = jnp.float32
    kernel: str = "auto"
    scan: bool = True
    remat: str = "none"

    Section = MMDiTSection

    @classmethod
    def build(
        cls, section: MMDiTSection, *, grid: tuple[int, int], condition: Condition, compute: ComputeSection
    ) -> MMDiT:
        """From the section `mmdit` of a generator.

        Raises:
          ValueError: the condition is no text.
        """
        if not hasattr(condition, "encode"):
            raise ValueError("the network mmdit reads text, and this generator is told none: set condition.kind=text")
        return cls(grid=grid, **as_dict(section), **compute.blocks)

    @property
    def tokens(self) -> tuple[int, int]:
        """Rows and columns of image tokens."""
        return self.grid

    @property
    def fixed_values(self) -> int:
        """Size of the fixed position table."""
        return self.grid[0] * self.grid[1] * self.width

    @nn.compact
    def __call__(
        self,
        latents: Float[Array, "b n c"],
        time: Float[Array, "b ..."],
        text: Mapping[str, Array],
        middle: bool = False,
        tokens_after: int = 0,
    ) -> Any:
        """See the class.

        Args:
          middle: also return what the second head reads, (velocity, velocity of block `middle`).
          tokens_after: also return the image tokens after so many blocks, (b, n, width), as the last; 0 for none.

        Raises:
          ValueError: the number of image tokens is not the grid's, `heads` does not divide `width`, or there is no
            second head.
        """
        check_tokens(latents.shape[1], self.grid)
        if middle and not self.middle:
            raise ValueError("there is no head at a middle block: middle=0")
        head_width, length = split_width(self.width, self.heads), text["tokens"].shape[1]
        init = nn.initializers.xavier_uniform()
        x = Dense(self.width, dtype=self.dtype, kernel_init=init, name="embed")(latents).astype(self.residual)
        x = x + sincos_table(self.width, self.grid).astype(self.residual)
        y = Dense(self.width, dtype=self.dtype, kernel_init=init, name="text_embed")(text["tokens"])
        y = y.astype(self.residual)
        condition = TimeEmbedding(self.width, scale=self.time_scale, name="time")(time)
        if self.conditioning == "tokens":
            pooled = Dense(self.width, name="pooled")(masked_mean(y.astype(jnp.float32), text["mask"]))
        else:
            pooled = Dense(self.width, name="pooled_out")(
                nn.silu(Dense(self.width, name="pooled_hidden")(text["pooled"].astype(jnp.float32)))
            )
        condition = condition + pooled
        seen = jnp.concatenate([text["mask"], jnp.ones(latents.shape[:2], bool)], axis=1)[:, None, None]
        same = ("heads", "hidden", "norm", "feed_forward", "feed_forward_bias", "qk_norm", "dtype", "kernel")
        fields = {"text": length, **{name: getattr(self, name) for name in same}}
        rotary = rotary_table(head_width, self.grid, prefix=length) if self.rotary else None
        tokens, shared = jnp.concatenate([y, x], axis=1), (condition, seen, rotary)
        inner = functools.partial(MMDiTBlock, **fields, last=False)
        lower = self.middle or self.depth - 1
        above, repeat = max(tokens_after - lower, 0), functools.partial(stack, scan=self.scan, remat=self.remat)
        tokens, kept = repeat(inner, lower, tokens, *shared, after=0 if above else tokens_after)
        at_middle, upper = tokens[:, length:], self.depth - 1 - lower
        if upper:
            after = above if above <= upper else 0
            tokens, upper_kept = repeat(inner, upper, tokens, *shared, after=after, name="upper_blocks")
            kept = upper_kept if after else kept
        policy = REMAT_POLICIES[self.remat]
        block = MMDiTBlock if policy is None else nn.remat(MMDiTBlock, policy=policy)
        x = block(**fields, last=True, name="last_block")(tokens, *shared)
        outputs = [self._velocity("last", "to_velocity", latents.shape[-1], x, condition)]
        if self.is_initializing() and self.middle or middle:
            outputs.append(self._velocity("middle", "middle_velocity", latents.shape[-1], at_middle, condition))
        if tokens_after:
            outputs.append(x if kept is None else kept[:, length:])
        return tuple(outputs) if len(outputs) > 1 else outputs[0]

    def _velocity(self, name: str, out: str, channels: int, x: Array, condition: Array) -> Float[Array, "b n c"]:
        """The network's end, equation (3) or (4); its linear starts at zero."""
        zeros = nn.initializers.zeros
        if self.conditioning == "tokens":
            table = self.param(f"{name}_table", nn.initializers.normal(self.width**-0.5), (2, self.width))
            shift, scale = table[0] + condition, table[1] + condition
        else:
            modulation = Dense(2 * self.width, kernel_init=zeros, name=f"{name}_modulation")(nn.silu(condition))
            shift, scale = jnp.split(modulation, 2, axis=-1)
        normed = make_norm(self.norm, affine=False, name=f"{name}_norm")(x)
        return Dense(channels, kernel_init=zeros, name=out)(modulate(normed, shift, scale)).astype(jnp.float32)
