"""L1: mean |ŷ − y| on pixels in [−1, 1]."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def l1(decoded: Float[Array, "b y x 3"], images: Float[Array, "b y x 3"]) -> Float[Array, ""]:
    """Mean absolute pixel error."""
    return jnp.mean(jnp.abs(decoded - images))
