"""Norms over channels, in float32 whatever comes in."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp

NORMS = ("rms", "layer")


def make_norm(kind: str, *, epsilon: float = 1e-6, affine: bool = True, name: str | None = None) -> nn.Module:
    """A float32 norm over channels: `rms` (weight) or `layer` (weight and bias).

    Raises:
      ValueError: `kind` is not one of `NORMS`.
    """
    if kind == "rms":
        return nn.RMSNorm(epsilon=epsilon, use_scale=affine, dtype=jnp.float32, name=name)
    if kind == "layer":
        # the mean is taken off before squaring: E[x²] − E[x]² cancels where the mean is large
        return nn.LayerNorm(
            epsilon=epsilon,
            use_scale=affine,
            use_bias=affine,
            use_fast_variance=False,
            dtype=jnp.float32,
            name=name,
        )
    raise ValueError(f"norm {kind!r} is unknown; choose one of {', '.join(NORMS)}")
