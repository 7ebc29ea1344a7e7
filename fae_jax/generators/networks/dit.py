"""The diffusion transformer, from SiT (arXiv 2401.08740) to LightningDiT (arXiv 2501.01423) by switches.

With c = Time(t) + Label(y), each block computes six vectors from silu(c) and applies adaLN-zero:

    x ← x + g₁ · Attention((1 + s₁) Norm(x) + b₁)                             (1)
    x ← x + g₂ · FeedForward((1 + s₂) Norm(x) + b₂)

and the network ends with W ((1 + s) Norm(x) + b), whose W starts at zero. A second such end, after block `middle`,
is what internal guidance compares with (arXiv 2512.24176).

A wide shallow head (RAE, arXiv 2510.11690, after DDT, arXiv 2504.05741) has blocks of its own, over the latents once
more, told by each token what the blocks before made of it; those are conditioned on silu(c), as in the authors' code:

    s = P silu(Time(t) + x),   h ← W z_t,   h ← Block(h; s),   v = W ((1 + s') Norm(h) + b')      (2)

LightningDiT-XL/1 (28 blocks, 1152 channels, 16 heads, SwiGLU 3072, RMSNorm, rotary) on 16×16×32 latents with
1000 classes: 675,256,736 with its fixed sine-cosine table (675.26 M in the FAE paper). The table is a constant
here, not a parameter; `fixed_values` counts it.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float, Int

from fae_jax.conditions import Condition
from fae_jax.nn.attention import SelfAttention, split_width
from fae_jax.nn.blocks import GATED, FeedForward, stack
from fae_jax.nn.compute import ComputeSection
from fae_jax.nn.dense import Dense
from fae_jax.nn.embeddings import LabelEmbedding, Rotary, TimeEmbedding, check_tokens, rotary_table, sincos_table
from fae_jax.nn.norms import NORMS, make_norm
from fae_jax.nn.tags import tag
from fae_jax.section import as_dict, at_least, one_of, option

# name → width, depth, heads; those of DiT, SiT and LightningDiT, which calls the last two 1p0B and 1p6B
SIZES = {
    "s": (384, 12, 6),
    "b": (768, 12, 12),
    "l": (1024, 24, 16),
    "xl": (1152, 28, 16),
    "1b": (1536, 24, 24),
    "1.6b": (1792, 28, 28),
}


def inner_width(width: int, feed_forward: str) -> int:
    """Width inside the feed-forward: 4 × `width`, or ⅔ of that where it is gated, which has a third matrix."""
    return int(2 / 3 * (4 * width)) if feed_forward in GATED else 4 * width


def _over_tokens(vector: Array) -> Float[Array, "b m d"]:
    """What is told to all tokens, (b, d), or to each, (b, n, d)."""
    return vector[:, None] if vector.ndim == 2 else vector


def modulate(x: Array, shift: Array, scale: Array) -> Float[Array, "b n d"]:
    """(1 + scale) x + shift in float32, with shift and scale of shape (b, d) or (b, n, d)."""
    return x.astype(jnp.float32) * (1 + _over_tokens(scale)) + _over_tokens(shift)


class DiTBlock(nn.Module):
    """Equation (1): (b, n, d), conditioned on (b, d), or token by token on (b, n, d)."""

    heads: int
    hidden: int
    norm: str
    feed_forward: str
    qk_norm: bool
    dtype: jnp.dtype
    kernel: str

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n d"], condition: Float[Array, "b ..."], rotary: Rotary | None
    ) -> Float[Array, "b n d"]:
        width = x.shape[-1]
        zeros, of_tokens = nn.initializers.zeros, condition.ndim == 3
        dtype = self.dtype if of_tokens else jnp.float32  # a product over all tokens, as large as the block's own
        modulation = Dense(6 * width, dtype=dtype, kernel_init=zeros, name="modulation")(nn.silu(condition))
        modulation = modulation if of_tokens else tag(modulation, "modulation")
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = jnp.split(modulation, 6, axis=-1)
        affine = self.norm == "rms"  # SiT's LayerNorm has no weights of its own; LightningDiT's RMSNorm has

        def norm(name: str, h: Array, shift: Array, scale: Array) -> Array:
            normed = make_norm(self.norm, affine=affine, name=name)(h)
            return modulate(normed, shift, scale).astype(self.dtype)

        attend = SelfAttention(
            self.heads,
            split_width(width, self.heads),
            qk_norm=self.norm if self.qk_norm else "",
            dtype=self.dtype,
            kernel=self.kernel,
            name="attention",
        )
        feed = FeedForward(self.feed_forward, self.hidden, dtype=self.dtype, name="feed_forward")
        x = x + (_over_tokens(gate_1) * attend(norm("attention_norm", x, shift_1, scale_1), rotary)).astype(x.dtype)
        normed = tag(norm("feed_forward_norm", x, shift_2, scale_2), "feed_forward_input")
        return x + (_over_tokens(gate_2) * feed(normed)).astype(x.dtype)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiTSection:
    """Sizes and switches of the DiT."""

    size: str = option(
        "",
        "s, b, l, xl, 1b or 1.6b: width, depth, heads and hidden, where they are left at their defaults",
        one_of("", *SIZES),
    )
    patch: int = option(1, "rows and columns of latents that are one token", at_least(1))
    width: int = option(1152, "channels", at_least(1))
    depth: int = option(28, "blocks", at_least(1))
    heads: int = option(16, "attention heads", at_least(1))
    hidden: int = option(3072, "inner width of the feed-forward", at_least(1))
    norm: str = option("rms", "rms (LightningDiT) or layer (SiT)", one_of(*NORMS))
    feed_forward: str = option(
        "swiglu", "swiglu (LightningDiT), gelu_tanh (SiT) or gelu (exact)", one_of("swiglu", "gelu", "gelu_tanh")
    )
    rotary: bool = option(True, "rotary positions (LightningDiT) beside the fixed table")
    qk_norm: bool = option(False, "normalise queries and keys, by the norm of the blocks (LightningDiT)")
    time_scale: float = option(1.0, "factor of times before they are embedded (LightningDiT, SiT: 1)")
    middle: int = option(
        0, "block after which a second head reads a velocity, for internal guidance; 0 = none", at_least(0)
    )
    head_width: int = option(0, "channels of a wide shallow head (RAE: 2048); 0 = none", at_least(0))
    head_depth: int = option(2, "its blocks", at_least(1))
    head_heads: int = option(16, "its attention heads", at_least(1))

    def __post_init__(self) -> None:
        """Puts the numbers of `size` where the defaults are."""
        if not self.size:
            return
        width, depth, heads = SIZES.get(self.size, (self.width, self.depth, self.heads))
        named = {"width": width, "depth": depth, "heads": heads}
        for field in dataclasses.fields(self):
            if field.name in named and getattr(self, field.name) == field.default:
                object.__setattr__(self, field.name, named[field.name])
            if field.name == "hidden" and self.hidden == field.default:
                object.__setattr__(self, "hidden", inner_width(self.width, self.feed_forward))

    def check(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"heads={self.heads} must divide width={self.width}")
        if self.middle >= self.depth:
            raise ValueError(f"middle={self.middle} must be below depth={self.depth}")
        if self.head_width % self.head_heads:
            raise ValueError(f"head_heads={self.head_heads} must divide head_width={self.head_width}")


class DiT(nn.Module):
    """velocity(z, t, y): noisy latents (b, n, c), times (b,) in [0, 1] (1 = noise), labels (b,) → (b, n, c) float32.

    Attributes:
      grid: rows and columns of tokens.
      classes: number of classes; the label `classes` means "no class".
      width, depth, heads, hidden: shape of the transformer.
      norm, feed_forward, rotary, qk_norm: the switches from SiT (layer, gelu_tanh, no, no) to LightningDiT
        (rms, swiglu, yes, no).
      time_scale: what times are multiplied by before their embedding; 1 in SiT and LightningDiT.
      patch: rows and columns of latents that are one token.
      middle: block after which the second head is; 0 for none.
      head_width, head_depth, head_heads: shape of the wide shallow head; no head where its width is 0.
      dtype, residual: dtypes of the matrix products and of the residual stream; all else is float32.
    """

    grid: tuple[int, int]
    classes: int
    width: int
    depth: int
    heads: int
    hidden: int
    norm: str = "rms"
    feed_forward: str = "swiglu"
    rotary: bool = True
    qk_norm: bool = False
    time_scale: float = 1.0
    patch: int = 1
    middle: int = 0
    head_width: int = 0
    head_depth: int = 2
    head_heads: int = 16
    dtype: jnp.dtype = jnp.float32
    residual: jnp.dtype = jnp.float32
    kernel: str = "auto"
    scan: bool = True
    remat: str = "none"

    Section = DiTSection

    @classmethod
    def build(
        cls, section: DiTSection, *, grid: tuple[int, int], condition: Condition, compute: ComputeSection
    ) -> DiT:
        """From the section `dit` of a generator.

        Raises:
          ValueError: the condition is a text, or patches do not divide the grid.
        """
        if hasattr(condition, "encode"):
            raise ValueError("the network dit embeds a class, and this generator reads text: choose network=mmdit")
        if any(side % section.patch for side in grid):
            raise ValueError(
                f"field generator.flow_matching.dit.patch={section.patch} must divide the grid of latents, "
                f"{grid[0]}×{grid[1]}"
            )
        own = {name: value for name, value in as_dict(section).items() if name != "size"}
        return cls(grid=grid, classes=condition.classes, **own, **compute.blocks)

    @property
    def tokens(self) -> tuple[int, int]:
        """Rows and columns of tokens."""
        return (self.grid[0] // self.patch, self.grid[1] // self.patch)

    @property
    def fixed_values(self) -> int:
        """Size of the fixed position table, which the paper's count includes."""
        return self.tokens[0] * self.tokens[1] * self.width

    @nn.compact
    def __call__(
        self,
        latents: Float[Array, "b n c"],
        time: Float[Array, "b ..."],
        label: Int[Array, " b"],
        middle: bool = False,
        tokens_after: int = 0,
    ) -> Any:
        """See the class.

        Args:
          time: one for each example, or several numbers, (b, k): see `TimeEmbedding`.
          middle: also return what the second head reads, (velocity, velocity of block `middle`).
          tokens_after: also return the tokens after so many blocks, (b, m, width), as the last; 0 for none.

        Raises:
          ValueError: the number of tokens is not the grid's, `heads` does not divide `width`, or there is no head.
        """
        check_tokens(latents.shape[1], self.grid)
        if middle and not self.middle:
            raise ValueError("there is no head at a middle block: middle=0")
        patches = self._patches(latents)
        xavier = nn.initializers.xavier_uniform()
        embed = Dense(self.width, dtype=self.dtype, kernel_init=xavier, name="embed")
        x = embed(patches).astype(self.residual) + sincos_table(self.width, self.tokens).astype(self.residual)
        of_time = TimeEmbedding(self.width, scale=self.time_scale, name="time")(time)
        condition = of_time + LabelEmbedding(self.classes, self.width, name="label")(label)
        if self.head_width:
            condition = nn.silu(condition)
        sizes, lower = (self.width, self.heads, self.hidden), self.middle or self.depth
        above = max(tokens_after - lower, 0)
        x, tokens = self._blocks("blocks", lower, *sizes, x, condition, after=0 if above else tokens_after)
        at_middle = x
        if self.middle:
            x, upper_tokens = self._blocks("upper_blocks", self.depth - lower, *sizes, x, condition, after=above)
            tokens = upper_tokens if above else tokens
        read = x, condition
        if self.head_width:
            told = nn.silu(of_time[:, None] + x)
            if self.head_width != self.width:
                told = Dense(self.head_width, dtype=self.dtype, kernel_init=xavier, name="to_head")(told)
            h = Dense(self.head_width, dtype=self.dtype, kernel_init=xavier, name="head_embed")(patches)
            hidden = inner_width(self.head_width, self.feed_forward)
            h = h.astype(self.residual)
            h, _ = self._blocks("head_blocks", self.head_depth, self.head_width, self.head_heads, hidden, h, told)
            read = h, told
        said: list[Any] = [self._velocity("last", "to_velocity", latents.shape[-1], *read)]
        if self.is_initializing() and self.middle or middle:
            said.append(self._velocity("middle", "middle_velocity", latents.shape[-1], at_middle, condition))
        if tokens_after:
            said.append(tokens)
        return tuple(said) if len(said) > 1 else said[0]

    def _patches(self, latents: Float[Array, "b n c"]) -> Float[Array, "b m p"]:
        if self.patch == 1:
            return latents
        p = self.patch
        return rearrange(latents, "b (y p x q) c -> b (y x) (p q c)", p=p, q=p, x=self.tokens[1])

    def _blocks(
        self, name: str, depth: int, width: int, heads: int, hidden: int, x: Array, condition: Array, after: int = 0
    ) -> tuple[Float[Array, "b m d"], Float[Array, "b m d"] | None]:
        """`depth` blocks under `name`, and what comes `after` so many of them."""
        head_width = split_width(width, heads)
        block = functools.partial(
            DiTBlock, heads, hidden, self.norm, self.feed_forward, self.qk_norm, self.dtype, self.kernel
        )
        rotary = rotary_table(head_width, self.tokens) if self.rotary else None
        how: dict[str, Any] = {"scan": self.scan, "remat": self.remat, "after": after, "name": name}
        return stack(block, depth, x, condition, rotary, **how)

    def _velocity(self, name: str, out: str, channels: int, x: Array, condition: Array) -> Float[Array, "b n c"]:
        """The network's end: norm, modulation and a linear that starts at zero."""
        width, zeros = x.shape[-1], nn.initializers.zeros
        shift, scale = jnp.split(
            Dense(2 * width, kernel_init=zeros, name=f"{name}_modulation")(nn.silu(condition)), 2, axis=-1
        )
        normed = make_norm(self.norm, affine=self.norm == "rms", name=f"{name}_norm")(x)
        values = self.patch * self.patch * channels
        tokens = Dense(values, kernel_init=zeros, name=out)(modulate(normed, shift, scale)).astype(jnp.float32)
        if self.patch == 1:
            return tokens
        p, across = self.patch, self.tokens[1]
        return rearrange(tokens, "b (y x) (p q c) -> b (y p x q) c", p=p, q=p, x=across)
