"""uint8 pixels and floats in [−1, 1]."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Array

from fae_jax.parallel.hosts import fetch


def to_pixels(image: Array | np.ndarray) -> Array:
    """uint8 → float32 in [−1, 1]."""
    return jnp.asarray(image).astype(jnp.float32) / 127.5 - 1


def to_uint8(images: Array | np.ndarray) -> np.ndarray:
    """[−1, 1] → uint8, rounded and clipped."""
    return fetch(jnp.clip(jnp.round((images + 1) * 127.5), 0, 255).astype(jnp.uint8))


def side_by_side(rows: list[np.ndarray]) -> np.ndarray:
    """Rows of equally many images (b, y, x, 3) as one image, row under row."""
    return rearrange(np.stack(rows), "r b y x c -> (r y) (b x) c")
