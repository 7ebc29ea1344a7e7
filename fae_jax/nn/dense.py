"""Linears over the last axis: one, and several as one product that a mesh can still split.

    y[b, n, p…] = Σ_d x[b, n, d] W[d, p…] + c[p…]                             (1)

The joint matrix is kept flat, (d, Π p), as published weights have it. On a mesh it is applied as in (1), so that
heads, or the channels of a feed-forward, stay an axis of their own: a split of the flat axis in two would part
queries from values, not heads from heads.

Otherwise products are of two matrices: examples and tokens are one axis, and so are all p. With more axes, XLA
transposes activations on a CPU before it multiplies them into the gradient of W (docs/performance.md); to other chips
it is the same.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fae_jax.nn.tags import on_a_mesh


def flat_dot_general(x: Array, kernel: Array, dimensions: Any, **options: Any) -> Array:
    """`jax.lax.dot_general` of x's last axis with the kernel's first, all other axes of x as one.

    Raises:
      ValueError: `dimensions` are others.
    """
    if dimensions != (((x.ndim - 1,), (0,)), ((), ())):
        raise ValueError(f"only x's last axis can be multiplied with the kernel's first, not {dimensions}")
    y = jax.lax.dot_general(x.reshape(-1, x.shape[-1]), kernel, (((1,), (0,)), ((), ())), **options)
    return y.reshape(*x.shape[:-1], *kernel.shape[1:])


# `flax.linen.Dense`, (…, d) → (…, features), by the above
Dense = functools.partial(nn.Dense, dot_general=flat_dot_general)


class JointDense(nn.Module):
    """Equation (1): (b, n, d) → (b, n, *parts); parameters `kernel` (d, Π parts) and `bias` as those of `nn.Dense`.

    Attributes:
      parts: axes of the result, such as (3, heads, head width).
      use_bias: whether c is there.
      dtype: dtype of the product; parameters stay float32.
    """

    parts: tuple[int, ...]
    use_bias: bool = True
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n ..."]:
        width, features = x.shape[-1], math.prod(self.parts)
        parts = self.parts if on_a_mesh() else (features,)
        kernel = self.param("kernel", nn.initializers.xavier_uniform(), (width, features))
        kernel = kernel.astype(self.dtype).reshape(width, *parts)
        y = flat_dot_general(x.astype(self.dtype), kernel, (((x.ndim - 1,), (0,)), ((), ())))
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (features,))
            y = y + bias.astype(self.dtype).reshape(parts)
        return y.reshape(*x.shape[:-1], *self.parts)
