"""A number for each array of a state, by which a checkpoint that changed on disk is told.

    digest(x) = Σ_i (2 i + 1) · bits(x_i)   mod 2³²                                                         (1)

over the flattened array. A factor is odd, so that one flipped bit, wherever it is, always changes the sum. It is
summed on the devices where the array lies, and does not depend on the mesh; here, where the array is small and no
other host holds a part of it, since a program compiled for its shape would take longer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped, UInt32

from fae_jax.parallel.rules import path_name

SMALL = 2**18  # numbers in an array that is summed here
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


def _digest_here(x: np.ndarray) -> int:
    """Equation (1)."""
    bits = np.ascontiguousarray(x).reshape(-1).view(f"u{x.dtype.itemsize}").astype(np.uint32)
    return int(np.sum((2 * np.arange(x.size, dtype=np.uint32) + 1) * bits, dtype=np.uint32))


def digests(tree: Any) -> dict[str, int]:
    """Equation (1) of every array of a tree, by its path."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    arrays = {path_name(path): leaf for path, leaf in leaves if isinstance(leaf, jax.Array)}
    near = {name for name, leaf in arrays.items() if leaf.size <= SMALL and leaf.is_fully_addressable}
    made = jax.device_get({name: leaf if name in near else digest(leaf) for name, leaf in arrays.items()})
    return {name: _digest_here(value) if name in near else int(value) for name, value in made.items()}


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
