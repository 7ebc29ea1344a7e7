"""L2: mean (ŷ − y)² on pixels in [−1, 1]."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def l2(decoded: Float[Array, "b y x 3"], images: Float[Array, "b y x 3"]) -> Float[Array, ""]:
    """Mean squared pixel error."""
    return jnp.mean((decoded - images) ** 2)
