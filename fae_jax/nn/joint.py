"""Several linears as one product, kept as one matrix, that a mesh can still split.

    y[b, n, p…] = Σ_d x[b, n, d] W[d, p…] + c[p…]                             (1)

The matrix is kept flat, (d, Π p), as published weights have it. It is applied as in (1), so that heads, or the
channels of a feed-forward, stay an axis of their own: a split of the flat axis in two would part queries from values,
not heads from heads.
"""

from __future__ import annotations

import math

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float


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
        kernel = self.param("kernel", nn.initializers.xavier_uniform(), (width, features))
        kernel = kernel.astype(self.dtype).reshape(width, *self.parts)
        y = jnp.tensordot(x.astype(self.dtype), kernel, axes=1)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (features,))
            y = y + bias.astype(self.dtype).reshape(self.parts)
        return y
