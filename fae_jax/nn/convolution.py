"""The pieces frozen convolutional networks are built of: grids of channels (b, y, x, c).

Their weights are read, never drawn: fresh ones are zeros, which cost nothing to trace where shapes alone are asked.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from fae_jax.nn.dense import precision


def conv(
    width: int,
    name: str,
    *,
    side: int = 3,
    stride: int = 1,
    padding: Any = "SAME",
    bias: bool = True,
    dtype: Any = jnp.float32,
) -> nn.Conv:
    """A convolution of `side` × `side`, whose product in float32 is one (see `fae_jax.nn.dense`)."""
    return nn.Conv(
        width,
        (side, side),
        strides=stride,
        padding=padding,
        use_bias=bias,
        dtype=dtype,
        precision=precision(dtype),
        kernel_init=nn.initializers.zeros,
        name=name,
    )


def group_norm(groups: int, epsilon: float, name: str) -> nn.GroupNorm:
    """A group norm in float32; the mean is taken off before squaring."""
    return nn.GroupNorm(groups, epsilon=epsilon, dtype=jnp.float32, use_fast_variance=False, name=name)


def doubled(x: Float[Array, "b y x c"]) -> Float[Array, "b 2*y 2*x c"]:
    """Every cell four times."""
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
