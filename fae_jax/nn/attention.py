"""Scaled dot-product attention: one function, its kernels behind it.

    attention(q, k, v) = softmax(q kᵀ / √d + mask) v                         (1)

The softmax is taken in float32 whatever the dtype of q, k and v.

Kernels, by name:

* ``xla``   -- any device.
* ``cudnn`` -- fused, NVIDIA GPUs of generation 8.0 and later, bfloat16 or float16.
* ``auto``  -- ``cudnn`` where it applies, otherwise ``xla``.
"""

from __future__ import annotations

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Bool, Float

from fae_jax.nn.embeddings import Rotary, apply_rotary

KERNELS = ("auto", "xla", "cudnn")


def split_width(width: int, heads: int) -> int:
    """Channels per head.

    Raises:
      ValueError: `heads` does not divide `width`.
    """
    if heads < 1 or width % heads:
        raise ValueError(f"a width of {width} cannot be split into {heads} heads; choose a number that divides it")
    return width // heads


def _cudnn_applies(query: Array) -> bool:
    half = query.dtype in (jnp.bfloat16, jnp.float16)
    return jax.default_backend() == "gpu" and half and query.shape[-1] % 8 == 0 and query.shape[-1] <= 128


def attention(
    query: Float[Array, "b n h d"],
    key: Float[Array, "b m h d"],
    value: Float[Array, "b m h d"],
    *,
    mask: Bool[Array, "..."] | None = None,
    bias: Float[Array, "..."] | None = None,
    scale: float | None = None,
    kernel: str = "auto",
) -> Float[Array, "b n h d"]:
    """Equation (1). `mask` (True = attend) and `bias` broadcast to (b, h, n, m); `scale` defaults to 1/√d.

    Raises:
      ValueError: `kernel` is not one of `KERNELS`.
    """
    if kernel not in KERNELS:
        raise ValueError(f"attention kernel {kernel!r} is unknown; choose one of {', '.join(KERNELS)}")
    if kernel == "auto":
        kernel = "cudnn" if _cudnn_applies(query) and bias is None else "xla"
    chosen: Literal["xla", "cudnn"] = "cudnn" if kernel == "cudnn" else "xla"
    return jax.nn.dot_product_attention(query, key, value, bias=bias, mask=mask, scale=scale, implementation=chosen)


class SelfAttention(nn.Module):
    """Multi-head self-attention with biased projections, rotary positions and query-key norm by choice.

    Attributes:
      heads: number of heads.
      head_width: channels per head.
      qkv_bias, out_bias: whether the projections carry a bias.
      qk_norm: RMS-normalise queries and keys per head.
      scale: what the products q kᵀ are multiplied by; None for 1/√head_width.
      dtype: dtype of the matrix products; parameters stay float32.
      kernel: see `attention`.
    """

    heads: int
    head_width: int
    qkv_bias: bool = True
    out_bias: bool = True
    qk_norm: bool = False
    dtype: jnp.dtype = jnp.float32
    kernel: str = "auto"
    scale: float | None = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b n d"],
        rotary: Rotary | None = None,
        mask: Bool[Array, "..."] | None = None,
        bias: Float[Array, "..."] | None = None,
    ) -> Float[Array, "b n d"]:
        init = nn.initializers.xavier_uniform()
        joint = nn.Dense(
            3 * self.heads * self.head_width, use_bias=self.qkv_bias, dtype=self.dtype, kernel_init=init, name="qkv"
        )(x)
        query, key, value = rearrange(joint, "b n (three h d) -> three b n h d", three=3, h=self.heads)
        if self.qk_norm:
            query = nn.RMSNorm(epsilon=1e-6, dtype=jnp.float32, name="query_norm")(query).astype(self.dtype)
            key = nn.RMSNorm(epsilon=1e-6, dtype=jnp.float32, name="key_norm")(key).astype(self.dtype)
        if rotary is not None:
            query, key = apply_rotary(query, *rotary), apply_rotary(key, *rotary)
        mixed = attention(query, key, value, mask=mask, bias=bias, scale=self.scale, kernel=self.kernel)
        return nn.Dense(x.shape[-1], use_bias=self.out_bias, dtype=self.dtype, kernel_init=init, name="out")(
            rearrange(mixed, "b n h d -> b n (h d)")
        )
