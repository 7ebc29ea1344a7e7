"""Convolutions, their poolings and group norm over (b, y, x, c), as pure functions of {"kernel", "bias"}.

GroupNorm(x) = (x − m) / √(v + ε) γ + β,   m, v over the grid and the channels of one group          (1)

`Convolution` and `GroupNorm` are the same as modules of frozen networks, whose weights are read and never drawn:
fresh ones are zeros, which cost nothing to trace where shapes alone are asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fae_jax.nn.dense import precision

LAYOUT = ("NHWC", "HWIO", "NHWC")


def convolve(
    params: Mapping[str, Array],
    x: Float[Array, "b y x c"],
    *,
    stride: int = 1,
    padding: Any = "SAME",
    depthwise: bool = False,
    dtype: Any = jnp.float32,
) -> Float[Array, "b v u d"]:
    """x ∗ kernel (rows, columns, in, out) + bias; the product in `dtype`, the result in float32."""
    out = jax.lax.conv_general_dilated(
        x.astype(dtype),
        params["kernel"].astype(dtype),
        (stride, stride),
        padding,
        dimension_numbers=LAYOUT,
        feature_group_count=x.shape[-1] if depthwise else 1,
        precision=precision(dtype),
    )
    return out.astype(jnp.float32) + params["bias"]


def init_convolution(key: Array, size: int, channels: int, width: int) -> dict[str, Array]:
    """A square kernel of variance 1 / (3 fan in), uniform (PyTorch's own), and a bias of 0."""
    bound = 1 / np.sqrt(size * size * channels)
    kernel = jax.random.uniform(key, (size, size, channels, width), minval=-bound, maxval=bound)
    return {"kernel": kernel, "bias": jnp.zeros(width)}


def max_pool(x: Float[Array, "b y x c"], size: int, stride: int, *, ceil: bool = False) -> Float[Array, "b v u c"]:
    """The largest of each window; `ceil` keeps what a last window only partly covers."""
    missing = [max(-(-(n - size) // stride), 0) * stride + size - n if ceil else 0 for n in x.shape[1:3]]
    padding = ((0, 0), (0, max(missing[0], 0)), (0, max(missing[1], 0)), (0, 0))
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, size, size, 1), (1, stride, stride, 1), padding)


def blur_pool(x: Float[Array, "b y x c"]) -> Float[Array, "b v u c"]:
    """Half the grid, by the kernel (1, 3, 3, 1) in both directions (arXiv 1904.11486)."""
    line = np.asarray([1, 3, 3, 1], np.float32)
    kernel = np.tile((np.outer(line, line) / 64)[:, :, None, None], (1, 1, 1, x.shape[-1]))
    return convolve({"kernel": jnp.asarray(kernel), "bias": jnp.zeros(())}, x, stride=2, depthwise=True)


def group_norm(
    params: Mapping[str, Array], x: Float[Array, "b y x c"], groups: int, epsilon: float = 1e-5
) -> Float[Array, "b y x c"]:
    """Equation (1), in float32."""
    split = x.astype(jnp.float32).reshape(*x.shape[:3], groups, -1)
    centred = split - split.mean((1, 2, 4), keepdims=True)
    normed = centred * jax.lax.rsqrt((centred**2).mean((1, 2, 4), keepdims=True) + epsilon)
    return normed.reshape(x.shape) * params["scale"] + params["bias"]


def doubled(x: Float[Array, "b y x c"]) -> Float[Array, "b 2*y 2*x c"]:
    """Every cell four times."""
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)


class Convolution(nn.Module):
    """`convolve` with a kernel of `side` × `side`, to `width` channels."""

    width: int
    side: int = 3
    stride: int = 1
    padding: Any = "SAME"
    bias: bool = True
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b y x c"]) -> Float[Array, "b v u d"]:
        zeros = nn.initializers.zeros
        params = {
            "kernel": self.param("kernel", zeros, (self.side, self.side, x.shape[-1], self.width)),
            "bias": self.param("bias", zeros, (self.width,)) if self.bias else jnp.zeros(()),
        }
        return convolve(params, x, stride=self.stride, padding=self.padding, dtype=self.dtype)


class GroupNorm(nn.Module):
    """`group_norm`."""

    groups: int
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: Float[Array, "b y x c"]) -> Float[Array, "b y x c"]:
        params = {name: self.param(name, nn.initializers.zeros, x.shape[-1:]) for name in ("scale", "bias")}
        return group_norm(params, x, self.groups, self.epsilon)
