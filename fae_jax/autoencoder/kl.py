"""The convolutional autoencoder of latent diffusion (arXiv 2112.10752): diffusers' `AutoencoderKL`, SD-VAE, VA-VAE.

Levels i of widths w_i, the grid halved between them, m = 2 c channels of moments at the coarsest:

    residual    x ← x' + conv(silu(norm(conv(silu(norm(x))))))      x' = x, or a 1×1 convolution of it          (1)
    attention   x ← x + W_o softmax(q kᵀ / √w) v,   q, k, v linears of norm(x) over the cells                  (2)
    encoder     image → levels of L residuals → (1)(2)(1) → conv(silu(norm(·))) → μ, log σ²                  (3)
    decoder     z → (1)(2)(1) → levels of L + 1 residuals → conv(silu(norm(·))) → image                        (4)

A halving is a 3×3 convolution of stride 2 on a grid with one more row and column of zeros behind; a doubling repeats
cells and convolves. 1×1 convolutions stand behind (3) and before (4) where `quant` is true. ε of the norms is 10⁻⁶.
VA-VAE (arXiv 2501.01423, hustvl/LightningDiT `tokenizer/autoencoder.py`) also has (2) behind each residual of the
coarsest level.

Modules are named as diffusers names them, with `_` before numbers in place of a dot.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float

from fae_jax.nn.attention import attention
from fae_jax.nn.convolutions import conv, doubled, make_group_norm
from fae_jax.nn.dense import Dense
from fae_jax.weights import flatten
from fae_jax.weights.mapping import CONVOLUTION, KEEP, LINEAR, Layout, NameMap, Part, Rule
from fae_jax.weights.tensors import Tensors

EPSILON = 1e-6
LOG_VARIANCE = (-30.0, 20.0)  # to which log σ² is clipped, as in diffusers and LightningDiT
ATTENTION = ("none", "middle", "coarsest")  # where (2) is; coarsest: in the middle and in the coarsest level
PARTS = {"image_encoder": ("encoder", "quant_conv"), "image_decoder": ("decoder", "post_quant_conv")}


class Residual(nn.Module):
    """Equation (1)."""

    width: int
    groups: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b y x c"]) -> Float[Array, "b y x d"]:
        h = x
        for number in ("1", "2"):
            h = nn.silu(make_group_norm(self.groups, EPSILON, f"norm{number}")(h))
            h = conv(self.width, f"conv{number}", dtype=self.dtype)(h)
        if x.shape[-1] != self.width:
            x = conv(self.width, "conv_shortcut", side=1, dtype=self.dtype)(x)
        return x + h


class CellAttention(nn.Module):
    """Equation (2), one head."""

    groups: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b y x c"]) -> Float[Array, "b y x c"]:
        rows, width = x.shape[1], x.shape[-1]
        cells = rearrange(make_group_norm(self.groups, EPSILON, "group_norm")(x), "b y x c -> b (y x) c")
        linear = functools.partial(Dense, width, dtype=self.dtype, kernel_init=nn.initializers.zeros)
        query, key, value = (linear(name=name)(cells)[:, :, None] for name in ("to_q", "to_k", "to_v"))
        mixed = attention(query, key, value, kernel="xla")[:, :, 0]
        out = linear(name="to_out_0")(mixed)
        return x + rearrange(out, "b (y x) c -> b y x c", y=rows)


class Level(nn.Module):
    """Residuals of one width, (2) behind each where `attended`, then a change of the grid: "down", "up" or ""."""

    width: int
    layers: int
    groups: int
    attended: bool = False
    change: str = ""
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b y x c"]) -> Float[Array, "b u v d"]:
        for layer in range(self.layers):
            x = Residual(self.width, self.groups, self.dtype, name=f"resnets_{layer}")(x)
            if self.attended:
                x = CellAttention(self.groups, self.dtype, name=f"attentions_{layer}")(x)
        if self.change == "down":
            return Resampling(self.width, stride=2, dtype=self.dtype, name="downsamplers_0")(x)
        return Resampling(self.width, dtype=self.dtype, name="upsamplers_0")(doubled(x)) if self.change else x


class Resampling(nn.Module):
    """The convolution of a halving or doubling."""

    width: int
    stride: int = 1
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b y x c"]) -> Float[Array, "b u v c"]:
        padding: Any = "SAME" if self.stride == 1 else ((0, 1), (0, 1))
        return conv(self.width, "conv", stride=self.stride, padding=padding, dtype=self.dtype)(x)


class Middle(nn.Module):
    """(1), (2) where `attended`, (1)."""

    width: int
    groups: int
    attended: bool = True
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b y x c"]) -> Float[Array, "b y x c"]:
        x = Residual(self.width, self.groups, self.dtype, name="resnets_0")(x)
        if self.attended:
            x = CellAttention(self.groups, self.dtype, name="attentions_0")(x)
        return Residual(self.width, self.groups, self.dtype, name="resnets_1")(x)


class KLEncoder(nn.Module):
    """Equation (3): images (b, height, width, 3) in [−1, 1] → moments (b, y, x, 2c), log σ² not clipped.

    Attributes:
      widths: of the levels.
      layers: residuals of a level.
      channels: c.
      groups: of the norms.
      attention: one of `ATTENTION`.
      quant: whether a 1×1 convolution ends it.
    """

    widths: tuple[int, ...]
    layers: int
    channels: int
    groups: int = 32
    attention: str = "middle"
    quant: bool = True
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images: Float[Array, "b height width 3"]) -> Float[Array, "b y x m"]:
        x, last = conv(self.widths[0], "conv_in", dtype=self.dtype)(images), len(self.widths) - 1
        for i, width in enumerate(self.widths):
            attended, change = self.attention == "coarsest" and i == last, "" if i == last else "down"
            level = Level(width, self.layers, self.groups, attended, change, self.dtype, name=f"down_blocks_{i}")
            x = level(x)
        x = Middle(self.widths[-1], self.groups, self.attention != "none", self.dtype, name="mid_block")(x)
        x = nn.silu(make_group_norm(self.groups, EPSILON, "conv_norm_out")(x))
        x = conv(2 * self.channels, "conv_out", dtype=self.dtype)(x)
        x = conv(2 * self.channels, "quant_conv", side=1, dtype=self.dtype)(x) if self.quant else x
        return x.astype(jnp.float32)


class KLDecoder(nn.Module):
    """Equation (4): latents (b, y, x, c) → images (b, height, width, 3), about [−1, 1], not clipped.

    Attributes: as of `KLEncoder`.
    """

    widths: tuple[int, ...]
    layers: int
    channels: int
    groups: int = 32
    attention: str = "middle"
    quant: bool = True
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, latents: Float[Array, "b y x c"]) -> Float[Array, "b height width 3"]:
        x, last = latents, len(self.widths) - 1
        if self.quant:
            x = conv(self.channels, "post_quant_conv", side=1, dtype=self.dtype)(x)
        x = conv(self.widths[-1], "conv_in", dtype=self.dtype)(x)
        x = Middle(self.widths[-1], self.groups, self.attention != "none", self.dtype, name="mid_block")(x)
        for i, width in enumerate(reversed(self.widths)):
            attended, change = self.attention == "coarsest" and i == 0, "" if i == last else "up"
            level = Level(width, self.layers + 1, self.groups, attended, change, self.dtype, name=f"up_blocks_{i}")
            x = level(x)
        x = nn.silu(make_group_norm(self.groups, EPSILON, "conv_norm_out")(x))
        return conv(3, "conv_out", dtype=jnp.float32)(x)


# Names in files: of diffusers, of diffusers before 0.14 (attention alone), of latent-diffusion (VA-VAE)

_CELLS = Layout(
    lambda shape: (*shape[::-1], 1, 1), lambda array: array[:, :, 0, 0].T
)  # a linear as a 1×1 convolution
_BEFORE_014 = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
_LATENT_DIFFUSION = {
    r"^(down|up)_blocks\.": r"\1.",
    r"^mid_block\.attentions\.0": "mid.attn_1",
    r"^mid_block\.resnets\.0": "mid.block_1",
    r"^mid_block\.resnets\.1": "mid.block_2",
    r"\.resnets\.": ".block.",
    r"\.attentions\.": ".attn.",
    r"\.(down|up)samplers\.0\.": r".\1sample.",
    r"group_norm$": "norm",
    r"to_(q|k|v)$": r"\1",
    r"to_out\.0$": "proj_out",
    r"conv_shortcut$": "nin_shortcut",
    r"^conv_norm_out$": "norm_out",
}


def names_of(part: str, shapes: Mapping[str, Any], tensors: Tensors) -> NameMap:
    """How a file, whose layout is told from its names, holds a part whose parameters have `shapes`.

    Args:
      part: a key of `PARTS`.
    """
    inside, beside = PARTS[part]
    latent_diffusion = any(name.startswith(f"{inside}.mid.") for name in tensors)
    before_014 = any(name.endswith(".proj_attn.weight") for name in tensors)
    levels = len([name for name in shapes if name.startswith("up_blocks_")])

    def in_file(module: str) -> str:
        name = re.sub(r"_(\d+)", r".\1", module)
        if latent_diffusion:
            name = re.sub(r"^up_blocks\.(\d+)", lambda level: f"up_blocks.{levels - 1 - int(level[1])}", name)
            for pattern, theirs in _LATENT_DIFFUSION.items():
                name = re.sub(pattern, theirs, name)
        elif before_014:
            for new, old in _BEFORE_014.items():
                name = name.removesuffix(f".{new}") + f".{old}" if name.endswith(f".{new}") else name
        return name if name == beside else f"{inside}.{name}"

    rules = []
    for leaf, shape in flatten(shapes).items():
        module, _, kind = leaf.rpartition(".")
        layout = KEEP
        if kind == "kernel":
            linear = _CELLS if latent_diffusion else LINEAR
            layout = CONVOLUTION if len(shape.shape) == 4 else linear
        name = f"{in_file(module)}.{'bias' if kind == 'bias' else 'weight'}"
        rules.append(Rule(leaf, (Part(name, layout),)))
    return NameMap(tuple(rules), ignored=rf"^(?!{inside}\.|{beside}\.)")


def moments(hidden: Float[Array, "b y x m"]) -> tuple[Float[Array, "b y x c"], Float[Array, "b y x c"]]:
    """What a `KLEncoder` says → μ and log σ²."""
    mean, log_variance = jnp.split(hidden, 2, axis=-1)
    return mean, jnp.clip(log_variance, *LOG_VARIANCE)
