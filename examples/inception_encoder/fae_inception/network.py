"""Inception v3 as the FID uses it (2015 graph, batch norms folded into convolutions), up to the 1280-channel block.

Sizes for images of 288×288: 16×16×768 before the ReLU of `mixed_7`, then 7×7×1280.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp

Params = Mapping[str, Mapping[str, jax.Array]]


def _conv(params: Params, name: str, x: jax.Array, stride: int = 1, padding: str = "SAME") -> jax.Array:
    kernel = params[name]["w"].astype(x.dtype)
    layout = ("NHWC", "HWIO", "NHWC")
    out = jax.lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=layout)
    return out + params[name]["b"].astype(x.dtype)


def _relu(params: Params, name: str, x: jax.Array, stride: int = 1, padding: str = "SAME") -> jax.Array:
    return jax.nn.relu(_conv(params, name, x, stride, padding))


def _chain(params: Params, names: list[str], x: jax.Array) -> jax.Array:
    """Convolutions one after the other; all but the last with a ReLU."""
    for name in names[:-1]:
        x = _relu(params, name, x)
    return _conv(params, names[-1], x)


def _max_pool(x: jax.Array) -> jax.Array:
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "VALID")


def _average_pool(x: jax.Array) -> jax.Array:
    """3×3 means that leave out what lies beyond the border."""
    window = (jax.lax.add, (1, 3, 3, 1), (1, 1, 1, 1), "SAME")
    count = jax.lax.reduce_window(jnp.ones((1, *x.shape[1:3], 1), x.dtype), 0.0, *window)
    return jax.lax.reduce_window(x, 0.0, *window) / count


def _block(params: Params, name: str, x: jax.Array, tower: int, tower_1: int) -> jax.Array:
    """Four branches side by side, before their ReLU; the towers have that many convolutions."""

    def names(branch: str, count: int) -> list[str]:
        return [f"{name}_{branch}_conv" + (f"_{i}" if i else "") for i in range(count)]

    branches = [
        _conv(params, f"{name}_conv", x),
        _chain(params, names("tower", tower), x),
        _chain(params, names("tower_1", tower_1), x),
        _conv(params, f"{name}_tower_2_conv", _average_pool(x)),
    ]
    return jnp.concatenate(branches, axis=-1)


def features(params: Params, pixels: jax.Array) -> jax.Array:
    """Images (b, 288, 288, 3) in [−1, 1] → the map (b, 16, 16, 768) before the ReLU of `mixed_7`."""
    x = _relu(params, "conv", pixels, 2, "VALID")
    x = _relu(params, "conv_2", _relu(params, "conv_1", x, 1, "VALID"))
    x = _relu(params, "conv_3", _max_pool(x), 1, "VALID")
    x = _max_pool(_relu(params, "conv_4", x, 1, "VALID"))
    for name in ("mixed", "mixed_1", "mixed_2"):
        x = jax.nn.relu(_block(params, name, x, 2, 3))
    tower = _relu(params, "mixed_3_tower_conv_1", _relu(params, "mixed_3_tower_conv", x))
    x = jnp.concatenate(
        [
            _relu(params, "mixed_3_conv", x, 2, "VALID"),
            _relu(params, "mixed_3_tower_conv_2", tower, 2, "VALID"),
            _max_pool(x),
        ],
        axis=-1,
    )
    for name in ("mixed_4", "mixed_5", "mixed_6"):
        x = jax.nn.relu(_block(params, name, x, 3, 5))
    return _block(params, "mixed_7", x, 3, 5)


def head(params: Params, x: jax.Array) -> jax.Array:
    """The map before the ReLU of `mixed_7` → the pooled output of `mixed_8`, (b, 1280)."""
    x = jax.nn.relu(x)
    tower = _relu(params, "mixed_8_tower_conv", x)
    tower_1 = _relu(params, "mixed_8_tower_1_conv", x)
    tower_1 = _relu(params, "mixed_8_tower_1_conv_2", _relu(params, "mixed_8_tower_1_conv_1", tower_1))
    branches = [
        _relu(params, "mixed_8_tower_conv_1", tower, 2, "VALID"),
        _relu(params, "mixed_8_tower_1_conv_3", tower_1, 2, "VALID"),
        _max_pool(x),
    ]
    return jnp.concatenate(branches, axis=-1).mean(axis=(1, 2))
