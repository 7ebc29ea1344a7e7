"""A number for each array of a state, by which a checkpoint that changed on disk is told.

    digest(x) = Σ_i (2 i + 1) · bits(x_i)   mod 2³²                                                         (1)

over the flattened array. A factor is odd, so that one flipped bit, wherever it is, always changes the sum. It is
summed on the devices where the array lies, and does not depend on the mesh.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped, UInt32

from fae_jax.parallel.rules import path_name

_BITS = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}


@jax.jit
def digest(x: Shaped[Array, "..."]) -> UInt32[Array, ""]:
    """Equation (1)."""
    whole = x.astype(jnp.uint8) if x.dtype == bool else x
    bits = jax.lax.bitcast_convert_type(whole, _BITS[whole.dtype.itemsize]).astype(jnp.uint32)
    place, stride = jnp.zeros((), jnp.uint32), 1
    for axis in reversed(range(x.ndim)):
        place = place + jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis) * np.uint32(stride % 2**32)
        stride *= x.shape[axis]
    return jnp.sum((2 * place + 1) * bits, dtype=jnp.uint32)


def digests(tree: Any) -> dict[str, int]:
    """Equation (1) of every array of a tree, by its path."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    made = {path_name(path): digest(leaf) for path, leaf in leaves if isinstance(leaf, jax.Array)}
    return {name: int(value) for name, value in jax.device_get(made).items()}


def check_digests(tree: Any, saved: Mapping[str, int] | None) -> None:
    """Compares what was read with what was saved; what was not read is passed over.

    Args:
      saved: `digests` of the state that was saved; None for a checkpoint of before there were any.

    Raises:
      ValueError: an array is not the one that was saved.
    """
    if saved is not None:
        for name, value in digests(tree).items():
            if saved.get(name) != value:
                raise ValueError(f"{name} is not what was saved")
