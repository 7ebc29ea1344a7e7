"""Reconstruction losses of the pixel decoder, on pixels in [−1, 1].

L = λ₁ mean |ŷ − y| + λ₂ mean (ŷ − y)²                                     (1)
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float


def pixel_error(
    decoded: Float[Array, "b y x 3"], images: Float[Array, "b y x 3"], l1_weight: float, l2_weight: float
) -> Float[Array, ""]:
    """Equation (1)."""
    difference = decoded - images
    return l1_weight * jnp.mean(jnp.abs(difference)) + l2_weight * jnp.mean(difference**2)


def psnr(decoded: Float[Array, "b y x 3"], images: Float[Array, "b y x 3"]) -> Float[Array, ""]:
    """Peak signal-to-noise ratio in dB, mean over images; the peak-to-peak range of pixels is 2."""
    error = jnp.mean((jnp.clip(decoded, -1, 1) - images) ** 2, axis=(1, 2, 3))
    return jnp.mean(10 * jnp.log10(4 / jnp.maximum(error, 1e-12)))
