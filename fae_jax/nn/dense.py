"""Linears over the last axis: one, and several as one product that a mesh can still split.

    y[b, n, p…] = Σ_d x[b, n, d] W[d, p…] + c[p…]                             (1)
    dW[d, p…] = Σ_{b, n} x[b, n, d] dy[b, n, p…],   dc[p…] = Σ_{b, n} dy[b, n, p…]      (2)

The joint matrix is kept flat, (d, Π p), as published weights have it. On a mesh it is applied as in (1), so that
heads, or the channels of a feed-forward, stay an axis of their own: a split of the flat axis in two would part
queries from values, not heads from heads.

Otherwise products are of two matrices: examples and tokens are one axis, and so are all p. With more axes, XLA
transposes activations on a CPU before it multiplies them into the gradient of W (docs/performance.md); to other chips
it is the same.

A product in float32 is one: TPUs and GPUs would otherwise round its factors to bfloat16 or TF32. Where the product is
in bfloat16, (2) is still summed in float32, on each device and over them: sums of a hundred thousand rows in bfloat16
are off by several percent. `weight_gradients` chooses the dtype of dW.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero, linear_call
from jaxtyping import Array, Float

from fae_jax.nn.tags import on_a_mesh

LAST_WITH_FIRST: Any = (((1,), (0,)), ((), ()))
_weight_gradients: ContextVar[str] = ContextVar("weight_gradients", default="float32")


@contextlib.contextmanager
def weight_gradients(dtype: str) -> Iterator[None]:
    """While a program is traced inside, gradients of matrices leave products in `dtype`, and so cross a mesh."""
    before = _weight_gradients.set(dtype)
    try:
        yield
    finally:
        _weight_gradients.reset(before)


def precision(dtype: Any) -> str | None:
    """What a product in `dtype` is asked for: float32 is meant where it is said."""
    return "highest" if dtype == jnp.float32 else None


def _product(x: Float[Array, "r d"], kernel: Array) -> Float[Array, "r ..."]:
    """The product of equation (1) in x's dtype."""
    return jax.lax.dot_general(x, kernel.astype(x.dtype), LAST_WITH_FIRST, precision=precision(x.dtype))


def _rows_with_rows(x: Float[Array, "r d"], dy: Float[Array, "r ..."]) -> Float[Array, "d ..."]:
    """dW of equation (2), float32."""
    return jax.lax.dot_general(x, dy, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32)


@jax.custom_jvp
def _summed_in_float32(x: Array, kernel: Array) -> Array:
    """`_product` whose gradient of the kernel is `_rows_with_rows`."""
    return _product(x, kernel)


@functools.partial(_summed_in_float32.defjvp, symbolic_zeros=True)
def _tangents(primals: tuple[Array, Array], tangents: tuple[Any, Any]) -> tuple[Array, Array]:
    (x, kernel), (dx, dkernel) = primals, tangents
    y = _summed_in_float32(x, kernel)
    dy = jnp.zeros_like(y)
    if not isinstance(dx, SymbolicZero):
        dy = dy + _product(dx, kernel)
    if not isinstance(dkernel, SymbolicZero):
        dy = dy + linear_call(_product, _rows_with_rows, x, dkernel)
    return y, dy


class Dense(nn.Module):
    """Equation (1): (…, d) → (…, *parts); float32 parameters `kernel` (d, Π parts) and `bias` (Π parts).

    Attributes:
      parts: channels of the result, or its axes, such as (3, heads, head width).
      use_bias: whether c is there.
      dtype: dtype of the product.
    """

    parts: int | tuple[int, ...]
    use_bias: bool = True
    dtype: jnp.dtype = jnp.float32
    kernel_init: Any = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b ..."]:
        whole = (self.parts,) if isinstance(self.parts, int) else self.parts
        width, features = x.shape[-1], math.prod(whole)
        parts = whole if on_a_mesh() else (features,)
        kernel = jnp.asarray(self.param("kernel", self.kernel_init, (width, features))).reshape(width, *parts)
        sums = ("float32", _weight_gradients.get())
        product = _product if jnp.dtype(self.dtype).name in sums else _summed_in_float32
        y = product(x.astype(self.dtype).reshape(-1, width), kernel)
        if self.use_bias:
            bias = jnp.asarray(self.param("bias", nn.initializers.zeros, (features,))).reshape(parts)
            # broadcast first, so that dc is summed before it is rounded; added to matrices, so that dW and dc read
            # one copy of dy
            y = y + jnp.broadcast_to(bias, y.shape).astype(self.dtype)
        return y.reshape(*x.shape[:-1], *whole)
