"""The VAE on features of stage Ia (paper, section 3.2).

    L = mean (x̂ − x)² / v + β · mean KL,   KL = ½ (μ² + σ² − 1 − log σ²)       (1)

with both means over every element and v the features' average channel variance (1 when they are standardised), so
that β does not depend on the encoder. The paper prints ‖x̂ − x‖² + β KL, neither divided by v nor averaged: over an
image of n tokens of d feature and c latent channels,

    L = n d · mean (x̂ − x)² + β · n c · mean KL,                                (2)

which is n d v times (1) with β c / (d v) for β: a β of (2) is as strong as one d v / c times smaller in (1), 48 times
in the paper's sizes at v = 1. Its gradients are hundreds of thousands of times as long, so that a clip of 1 shortens
every one of them to 1: AdamW then weighs all steps alike.
"""

from __future__ import annotations

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float


def kl_divergence(mean: Float[Array, "b n c"], log_variance: Float[Array, "b n c"]) -> Float[Array, ""]:
    """KL(N(μ, σ²) ‖ N(0, 1)) in nats, mean per latent element."""
    return 0.5 * jnp.mean(mean**2 + jnp.exp(log_variance) - 1 - log_variance)


def feature_error(
    reconstruction: Float[Array, "b n d"], features: Float[Array, "b n d"], variance: float
) -> Float[Array, ""]:
    """The first term of equation (1): the share of the features' variance that is missed."""
    return jnp.mean((reconstruction - features) ** 2) / variance


def reduced(
    error: Float[Array, ""],
    kl: Float[Array, ""],
    *,
    beta: float,
    reduction: str,
    sizes: tuple[int, int, int],
    variance: float,
) -> Float[Array, ""]:
    """Equation (1) for a `reduction` of "mean", (2) for "sum".

    Args:
      error: that of (1).
      sizes: n, d, c.
      variance: v.

    Raises:
      ValueError: the reduction is neither.
    """
    tokens, features, latents = sizes
    if reduction == "mean":
        return error + beta * kl
    if reduction == "sum":
        return tokens * (features * variance * error + beta * latents * kl)
    raise ValueError(f"reduction {reduction!r} is unknown; choose mean or sum")


def inactive_channels(mean: Float[Array, "b n c"]) -> Float[Array, ""]:
    """How many latent channels say nothing: posterior means of variance below 0.01 over all tokens (Burda et al.,
    arXiv 1509.00519)."""
    return jnp.sum(jnp.var(mean, axis=(0, 1)) < 0.01).astype(jnp.float32)


def cosine(a: Float[Array, "b n d"], b: Float[Array, "b n d"]) -> Float[Array, ""]:
    """Mean cosine similarity of corresponding tokens, in [−1, 1]; 0 without a slope where a token is 0, as all are
    that a fresh DiT gives."""
    lengths = optax.safe_norm(a, 0.0, axis=-1) * optax.safe_norm(b, 0.0, axis=-1)
    return jnp.mean(jnp.sum(a * b, -1) / jnp.where(lengths > 0, lengths, jnp.inf))
