"""Differentiable augmentation, so that a discriminator cannot learn the images by heart (arXiv 2006.10738).

With seven numbers r in [0, 1) of each image of h × w pixels, in this order, as StyleGAN-T and RAE compute it:

    translation   by ⌊r₀ (2 δ_h + 1)⌋ − δ_h rows and likewise columns (r₁), δ = round(n / 8), black beyond the border
    brightness    x + r₂ − ½
    saturation    (x − m) 2 r₃ + m,        m the mean over channels of a pixel
    contrast      (x − M) (r₄ + ½) + M,    M the mean over the image
    cutout        0 in a rectangle of a share s of each side, round(s n), around (r₅, r₆)

on pixels in [−1, 1], where "black" beyond the border is 0, a grey, as it is there.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

SHIFT = 1 / 8
NUMBERS = 7


def augment(images: Float[Array, "b y x 3"], r: Float[Array, "b 7"], cutout: float) -> Float[Array, "b y x 3"]:
    """The module's augmentations; `cutout` is s."""
    return jax.vmap(lambda x, r: _one(x, r, cutout))(images, r)


def _one(x: Float[Array, "y x 3"], r: Float[Array, " 7"], cutout: float) -> Float[Array, "y x 3"]:
    for axis in (0, 1):
        n, reach = x.shape[axis], round(x.shape[axis] * SHIFT)
        by = jnp.floor(r[axis] * (2 * reach + 1)).astype(jnp.int32) - reach
        padded = jnp.pad(x, [(reach, reach) if each == axis else (0, 0) for each in range(3)])
        x = jax.lax.dynamic_slice_in_dim(padded, by + reach, n, axis)
    x = x + r[2] - 0.5
    mean = x.mean(-1, keepdims=True)
    x = (x - mean) * (2 * r[3]) + mean
    mean = x.mean()
    x = (x - mean) * (r[4] + 0.5) + mean
    inside = jnp.ones(())
    for axis in (0, 1):
        n, size = x.shape[axis], round(x.shape[axis] * cutout)
        first = jnp.floor(r[5 + axis] * (n + 1 - size % 2)).astype(jnp.int32) - size // 2
        cells = jnp.arange(n)
        hit = (cells >= first) & (cells < first + size)
        inside = inside * jnp.expand_dims(hit, (1 - axis, 2))
    return x * (1 - inside)
