"""How networks are computed: dtypes, kernels, loops, and what the backward pass keeps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from fae_jax.nn.attention import KERNELS
from fae_jax.nn.blocks import REMAT_POLICIES
from fae_jax.section import one_of, option

DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComputeSection:
    """What every network is computed with."""

    dtype: str = option(
        "bfloat16", "dtype of matrix products; parameters, norms, softmax and losses are float32", one_of(*DTYPES)
    )
    residual: str = option(
        "float32", "dtype of the stream that blocks add to; bfloat16 takes half the memory", one_of(*DTYPES)
    )
    gradients: str = option(
        "float32",
        "dtype in which gradients of matrices are summed over devices; bfloat16 sends less",
        one_of(*DTYPES),
    )
    kernel: str = option(
        "auto", "attention kernel: auto, xla, cpu, cudnn (NVIDIA), splash (TPU)", one_of(*KERNELS), operational=True
    )
    scan: bool = option(
        True, "compile one block and loop (fast to compile); False unrolls (fast on a CPU)", operational=True
    )
    compilation_cache: str = option(
        "auto", "compiled programs: a folder, off, or auto (the user's on accelerators)", operational=True
    )
    remat: str = option(
        "none",
        "what the backward pass keeps: none (= all), dots, branches, qkv, attention, full",
        one_of(*REMAT_POLICIES),
        operational=True,
    )

    @property
    def products(self) -> dict[str, Any]:
        """Attributes of a network without blocks."""
        return {"dtype": jnp.dtype(self.dtype), "kernel": self.kernel}

    @property
    def blocks(self) -> dict[str, Any]:
        """Attributes of a network with blocks."""
        return {**self.products, "residual": jnp.dtype(self.residual), "scan": self.scan, "remat": self.remat}


def from_step(step: Int[Array, ""], first: int, run: Callable[..., Any], *operands: Any) -> Any:
    """`run(*operands)` from the step `first` on, before it zeros of its shapes.

    Accelerators compute it from there on alone, a CPU always: in a branch XLA's convolutions take 45 times as long.
    """
    shapes = jax.eval_shape(run, *operands)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    def chosen(*operands: Any) -> Any:
        return jax.tree.map(lambda made, zero: jnp.where(step >= first, made, zero), run(*operands), zeros)

    def branched(*operands: Any) -> Any:
        return jax.lax.cond(step >= first, run, lambda *_: zeros, *operands)

    return jax.lax.platform_dependent(*operands, cpu=chosen, default=branched)
