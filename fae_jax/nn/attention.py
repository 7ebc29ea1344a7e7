"""Scaled dot-product attention: one function, its kernels behind it.

    attention(q, k, v) = softmax(q kᵀ / √d + mask) v                         (1)

The softmax is taken in float32 whatever the dtype of q, k and v.

Kernels, by name:

* ``xla``   -- any device.
* ``cudnn`` -- fused, NVIDIA GPUs of generation 8.0 and later, bfloat16 or float16.
* ``splash`` -- fused, TPU: full attention over multiples of 128 tokens; elsewhere as ``xla``.
* ``auto``  -- ``cudnn`` or ``splash`` where it applies, otherwise ``xla``.
"""

from __future__ import annotations

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Bool, Float

from fae_jax.nn.embeddings import Rotary, apply_rotary
from fae_jax.nn.joint import JointDense
from fae_jax.nn.tags import on_each_device, tag

KERNELS = ("auto", "xla", "cudnn", "splash")
SPLASH_TOKENS = 128  # the kernel's blocks


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
    if kernel == "auto" and jax.default_backend() == "tpu":
        kernel = "splash"
    if kernel == "auto":
        kernel = "cudnn" if _cudnn_applies(query) and bias is None else "xla"
    whole = query.shape[1] % SPLASH_TOKENS == 0 and key.shape[1] % SPLASH_TOKENS == 0
    if kernel == "splash" and whole and mask is None and bias is None:
        factor = query.shape[-1] ** -0.5 if scale is None else scale
        return on_each_device(_splash, (query * factor).astype(query.dtype), key, value, name="attended")
    chosen: Literal["xla", "cudnn"] = "cudnn" if kernel == "cudnn" else "xla"
    return jax.nn.dot_product_attention(query, key, value, bias=bias, mask=mask, scale=scale, implementation=chosen)


def _splash(query: Array, key: Array, value: Array, interpret: bool = False) -> Array:
    """Equation (1) by the TPU kernel, on one device, of scaled queries; `interpret` runs it anywhere, slowly."""
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel, splash_attention_mask

    seen = splash_attention_mask.FullMask((query.shape[1], key.shape[1]))
    mask = splash_attention_mask.MultiHeadMask([seen] * query.shape[2])
    run = splash_attention_kernel.make_splash_mha(mask=mask, head_shards=1, q_seq_shards=1, interpret=interpret)
    mixed = jax.vmap(run)(*(rearrange(x, "b n h e -> b h n e") for x in (query, key, value)))
    return rearrange(mixed, "b h n e -> b n h e").astype(value.dtype)


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
        joint = JointDense((3, self.heads, self.head_width), use_bias=self.qkv_bias, dtype=self.dtype, name="qkv")
        query, key, value = rearrange(tag(joint(x), "qkv"), "b n three h e -> three b n h e")
        if self.qk_norm:
            query = nn.RMSNorm(epsilon=1e-6, dtype=jnp.float32, name="query_norm")(query).astype(self.dtype)
            key = nn.RMSNorm(epsilon=1e-6, dtype=jnp.float32, name="key_norm")(key).astype(self.dtype)
        if rotary is not None:
            query, key = apply_rotary(query, *rotary), apply_rotary(key, *rotary)
        mixed = attention(query, key, value, mask=mask, bias=bias, scale=self.scale, kernel=self.kernel)
        mixed = tag(mixed, "attended")
        return nn.Dense(x.shape[-1], use_bias=self.out_bias, dtype=self.dtype, kernel_init=init, name="out")(
            rearrange(mixed, "b n h d -> b n (h d)")
        )
