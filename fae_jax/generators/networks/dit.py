"""The diffusion transformer, from SiT (arXiv 2401.08740) to LightningDiT (arXiv 2501.01423) by switches.

With c = Time(t) + Label(y), each block computes six vectors from silu(c) and applies adaLN-zero:

    x ← x + g₁ · Attention((1 + s₁) Norm(x) + b₁)                             (1)
    x ← x + g₂ · FeedForward((1 + s₂) Norm(x) + b₂)

and the network ends with W ((1 + s) Norm(x) + b), whose W starts at zero.

LightningDiT-XL/1 (28 blocks, 1152 channels, 16 heads, SwiGLU 3072, RMSNorm, rotary) on 16×16×32 latents with
1000 classes: 675,256,736 with its fixed sine-cosine table (675.26 M in the FAE paper). The table is a constant
here, not a parameter; `fixed_values` counts it.
"""

from __future__ import annotations

import dataclasses
import functools

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fae_jax.conditions import Condition
from fae_jax.nn.attention import SelfAttention, split_width
from fae_jax.nn.blocks import FeedForward, stack
from fae_jax.nn.compute import ComputeSection
from fae_jax.nn.dense import Dense
from fae_jax.nn.embeddings import LabelEmbedding, Rotary, TimeEmbedding, check_tokens, rotary_table, sincos_table
from fae_jax.nn.norms import NORMS, make_norm
from fae_jax.nn.tags import tag
from fae_jax.section import as_dict, at_least, one_of, option


def modulate(x: Array, shift: Array, scale: Array) -> Float[Array, "b n d"]:
    """(1 + scale) x + shift in float32, with shift and scale of shape (b, d)."""
    return x.astype(jnp.float32) * (1 + scale[:, None]) + shift[:, None]


class DiTBlock(nn.Module):
    """Equation (1): (b, n, d), conditioned on (b, d)."""

    heads: int
    hidden: int
    norm: str
    feed_forward: str
    qk_norm: bool
    dtype: jnp.dtype
    kernel: str

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n d"], condition: Float[Array, "b d"], rotary: Rotary | None
    ) -> Float[Array, "b n d"]:
        width = x.shape[-1]
        zeros = nn.initializers.zeros
        modulation = Dense(6 * width, kernel_init=zeros, name="modulation")(nn.silu(condition))
        modulation = tag(modulation, "modulation")
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
        x = x + (gate_1[:, None] * attend(norm("attention_norm", x, shift_1, scale_1), rotary)).astype(x.dtype)
        normed = tag(norm("feed_forward_norm", x, shift_2, scale_2), "feed_forward_input")
        return x + (gate_2[:, None] * feed(normed)).astype(x.dtype)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiTSection:
    """Sizes and switches of the DiT."""

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

    def check(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"heads={self.heads} must divide width={self.width}")


class DiT(nn.Module):
    """velocity(z, t, y): noisy latents (b, n, c), times (b,) in [0, 1] (1 = noise), labels (b,) → (b, n, c) float32.

    Attributes:
      grid: rows and columns of tokens.
      classes: number of classes; the label `classes` means "no class".
      width, depth, heads, hidden: shape of the transformer.
      norm, feed_forward, rotary, qk_norm: the switches from SiT (layer, gelu_tanh, no, no) to LightningDiT
        (rms, swiglu, yes, no).
      time_scale: what times are multiplied by before their embedding; 1 in SiT and LightningDiT.
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
          ValueError: the condition is a text.
        """
        if hasattr(condition, "encode"):
            raise ValueError("the network dit embeds a class, and this generator reads text: choose network=mmdit")
        return cls(grid=grid, classes=condition.classes, **as_dict(section), **compute.blocks)

    @property
    def fixed_values(self) -> int:
        """Size of the fixed position table, which the paper's count includes."""
        return self.grid[0] * self.grid[1] * self.width

    @nn.compact
    def __call__(
        self, latents: Float[Array, "b n c"], time: Float[Array, " b"], label: Int[Array, " b"]
    ) -> Float[Array, "b n c"]:
        """See the class.

        Raises:
          ValueError: the number of tokens is not the grid's, or `heads` does not divide `width`.
        """
        check_tokens(latents.shape[1], self.grid)
        head_width = split_width(self.width, self.heads)
        zeros = nn.initializers.zeros
        embed = Dense(self.width, dtype=self.dtype, kernel_init=nn.initializers.xavier_uniform(), name="embed")
        x = embed(latents).astype(self.residual) + sincos_table(self.width, self.grid).astype(self.residual)
        condition = TimeEmbedding(self.width, scale=self.time_scale, name="time")(time)
        condition = condition + LabelEmbedding(self.classes, self.width, name="label")(label)
        block = functools.partial(
            DiTBlock,
            self.heads,
            self.hidden,
            self.norm,
            self.feed_forward,
            self.qk_norm,
            self.dtype,
            self.kernel,
        )
        rotary = rotary_table(head_width, self.grid) if self.rotary else None
        x, _ = stack(block, self.depth, x, condition, rotary, scan=self.scan, remat=self.remat)
        shift, scale = jnp.split(
            Dense(2 * self.width, kernel_init=zeros, name="last_modulation")(nn.silu(condition)), 2, axis=-1
        )
        last = make_norm(self.norm, affine=self.norm == "rms", name="last_norm")(x)
        out = Dense(latents.shape[-1], kernel_init=zeros, name="to_velocity")
        return out(modulate(last, shift, scale)).astype(jnp.float32)
