"""Parameters of a module: fresh ones, how many there are, and how its blocks are compiled."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array

M = TypeVar("M", bound=nn.Module)


def looped(module: M, dtype: str = "") -> M:
    """The same module with its blocks compiled once and looped over: for programs that run few times on a CPU.

    Args:
      dtype: of its products and its residual stream; empty for the module's own.
    """
    given = {"scan": True, **({"dtype": jnp.dtype(dtype), "residual": jnp.dtype(dtype)} if dtype else {})}
    return module.clone(**{name: value for name, value in given.items() if hasattr(module, name)})


def init_params(module: nn.Module, key: Array, *inputs: Any) -> Any:
    """Fresh parameters of a module for inputs of these shapes.

    Blocks are initialised by a loop over one compiled block, also where they will run unrolled: the numbers are the
    same, and compiling takes a fraction of the time.
    """
    return looped(module).init(key, *inputs).get("params", {})


def count(params: Any) -> int:
    """Values in a tree of arrays or shapes."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
