"""Tiny autoencoders that imitate large ones: TAESD and its relatives (github.com/madebyollin/taesd, MIT).

64 channels throughout, pixels p in [0, 1], latents about [−3, 3]:

    pool(x)    W₂ relu(norm(W₁ x)),   W₁ 64 → 256, W₂ back, four groups                       (1)
    block(x)   relu(conv(relu(conv(relu(conv(x'))))) + x'),   x' = x, or x + pool(x)            (2)
    encoder    conv, block, then three times a halving and three blocks, conv                (3)
    decoder    3 tanh(z/3), conv, relu, then three times three blocks and a doubling, block, conv        (4)

A halving is a convolution of stride 2, a doubling repeats cells and convolves; both without bias. Where the relative
is `pooled` (FLUX.2's), the three blocks of the coarsest grid have (1). Modules are `layer_N` by place in the file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from fae_jax.nn.convolutions import conv, doubled, make_group_norm
from fae_jax.weights import flatten
from fae_jax.weights.mapping import CONVOLUTION, KEEP, NameMap, Part, Rule

WIDTH, FACTOR = 64, 8  # channels; pixels of a cell's side
BLOCKS = 3  # behind a halving, before a doubling


class Pool(nn.Module):
    """Equation (1)."""

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b y x c"]) -> Float[Array, "b y x c"]:
        hidden = conv(4 * WIDTH, "pool_0", side=1, bias=False, dtype=self.dtype)(x)
        hidden = nn.relu(make_group_norm(4, 1e-5, "pool_1")(hidden))
        return conv(WIDTH, "pool_3", side=1, bias=False, dtype=self.dtype)(hidden)


class TinyBlock(nn.Module):
    """Equation (2)."""

    pooled: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b y x c"]) -> Float[Array, "b y x c"]:
        x = x + Pool(self.dtype, name="own")(x) if self.pooled else x
        hidden = x
        for number in (0, 2):
            hidden = nn.relu(conv(WIDTH, f"conv_{number}", dtype=self.dtype)(hidden))
        return nn.relu(conv(WIDTH, "conv_4", dtype=self.dtype)(hidden) + x)


class TinyEncoder(nn.Module):
    """Equation (3): pixels (b, 8y, 8x, 3) in [0, 1] → latents (b, y, x, c).

    Attributes:
      channels: c.
      pooled: whether blocks of the coarsest grid have (1).
    """

    channels: int
    pooled: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, pixels: Float[Array, "b height width 3"]) -> Float[Array, "b y x c"]:
        x = conv(WIDTH, "layer_0", dtype=self.dtype)(pixels)
        x = TinyBlock(dtype=self.dtype, name="layer_1")(x)
        place = 2
        for coarsest in (False, False, True):
            padding = ((1, 1), (1, 1))
            x = conv(WIDTH, f"layer_{place}", stride=2, padding=padding, bias=False, dtype=self.dtype)(x)
            for number in range(BLOCKS):
                name = f"layer_{place + 1 + number}"
                x = TinyBlock(self.pooled and coarsest, self.dtype, name=name)(x)
            place += 1 + BLOCKS
        return conv(self.channels, f"layer_{place}", dtype=self.dtype)(x).astype(jnp.float32)


class TinyDecoder(nn.Module):
    """Equation (4): latents (b, y, x, c) → pixels (b, 8y, 8x, 3), about [0, 1], not clipped.

    Attributes: as of `TinyEncoder`.
    """

    channels: int
    pooled: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, latents: Float[Array, "b y x c"]) -> Float[Array, "b height width 3"]:
        x = nn.relu(conv(WIDTH, "layer_1", dtype=self.dtype)(3 * jnp.tanh(latents / 3)))
        place = 3
        for coarsest in (True, False, False):
            for number in range(BLOCKS):
                x = TinyBlock(self.pooled and coarsest, self.dtype, name=f"layer_{place + number}")(x)
            place += BLOCKS + 1  # the doubling has no weights, and a place
            x = conv(WIDTH, f"layer_{place}", bias=False, dtype=self.dtype)(doubled(x))
            place += 1
        x = TinyBlock(dtype=self.dtype, name=f"layer_{place}")(x)
        return conv(3, f"layer_{place + 1}", dtype=jnp.float32)(x)


def names_of(shapes: Mapping[str, Any]) -> NameMap:
    """How madebyollin's files hold parameters of these shapes."""
    rules = []
    for leaf, shape in flatten(shapes).items():
        module, _, kind = leaf.rpartition(".")
        name = re.sub(r"_(\d+)", r".\1", module.replace(".own", "")).removeprefix("layer.")
        layout = CONVOLUTION if len(shape.shape) == 4 else KEEP
        rules.append(Rule(leaf, (Part(f"{name}.{'bias' if kind == 'bias' else 'weight'}", layout),)))
    return NameMap(tuple(rules))
