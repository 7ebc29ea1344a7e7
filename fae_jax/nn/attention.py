"""Scaled dot-product attention: one function, its kernels behind it.

    attention(q, k, v) = softmax(q kᵀ / √d + mask) v                         (1)

The softmax is taken in float32 whatever the dtype of q, k and v; products of float32 are in float32 (nn/dense.py).

Kernels, by name:

* ``xla``   -- any device.
* ``cpu``   -- any device, written for CPUs: heads in front, sums divided out after the product with v, and queries in
  halves where there are a few more than `CPU_QUERIES`: XLA fuses that into one pass (docs/performance.md).
* ``cudnn`` -- fused, NVIDIA GPUs of generation 8.0 and later, bfloat16 or float16.
* ``splash`` -- fused, TPU, bfloat16: full attention over multiples of 128 tokens; elsewhere as ``xla``.
* ``auto``  -- ``cudnn`` or ``splash`` where it applies, ``cpu`` on a CPU, otherwise ``xla``.
"""

from __future__ import annotations

import functools
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Array, Bool, Float

from fae_jax.nn.dense import Dense, precision
from fae_jax.nn.embeddings import Rotary, apply_rotary
from fae_jax.nn.norms import make_norm
from fae_jax.nn.tags import on_each_device, tag

KERNELS = ("auto", "xla", "cpu", "cudnn", "splash")
SPLASH_TOKENS = 128  # the kernel's blocks
CPU_QUERIES = (
    256  # XLA's fused attention on a CPU takes twice as long for one query more; from 512 on it no longer pays
)
MASKED = -0.7 * float(np.finfo(np.float32).max)  # logit of what is not attended to; finite, as in JAX's own


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
        kernel = {"tpu": "splash", "cpu": "cpu"}.get(jax.default_backend(), "auto")
    if kernel == "auto":
        kernel = "cudnn" if _cudnn_applies(query) and bias is None else "xla"
    whole = query.shape[1] % SPLASH_TOKENS == 0 and key.shape[1] % SPLASH_TOKENS == 0
    if kernel == "splash" and whole and query.dtype == jnp.bfloat16 and mask is None and bias is None:
        factor = query.shape[-1] ** -0.5 if scale is None else scale
        return on_each_device(_splash, (query * factor).astype(query.dtype), key, value, name="attended")
    with jax.default_matmul_precision(precision(query.dtype)):
        if kernel == "cpu":
            return _plain(query, key, value, mask, bias, query.shape[-1] ** -0.5 if scale is None else scale)
        chosen: Literal["xla", "cudnn"] = "cudnn" if kernel == "cudnn" else "xla"
        return jax.nn.dot_product_attention(
            query, key, value, bias=bias, mask=mask, scale=scale, implementation=chosen
        )


def _plain(
    query: Array, key: Array, value: Array, mask: Array | None, bias: Array | None, scale: float
) -> Float[Array, "b n h d"]:
    """Equation (1) as (w v) / Σ w with w = exp(logits − their maximum)."""
    q, k, v = (rearrange(x, "b n h e -> b h n e") for x in ((query * scale).astype(query.dtype), key, value))

    def mixed(rows: slice) -> Float[Array, "b h n e"]:
        logits = jnp.einsum("bhne,bhme->bhnm", q[:, :, rows], k, preferred_element_type=jnp.float32)
        if bias is not None:
            logits = logits + _rows(bias, rows)
        if mask is not None:
            logits = jnp.where(_rows(mask, rows), logits, MASKED)
        # The maximum only keeps exp in range: the result, and so its gradient, does not depend on it.
        weights = jnp.exp(logits - jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True)))
        total = jnp.sum(weights, axis=-1, keepdims=True)
        return jnp.einsum("bhnm,bhme->bhne", weights.astype(v.dtype), v, preferred_element_type=jnp.float32) / total

    n = query.shape[1]
    if CPU_QUERIES < n < 2 * CPU_QUERIES:
        parts = [mixed(slice(None, (n + 1) // 2)), mixed(slice((n + 1) // 2, None))]
        result = jnp.concatenate(parts, axis=2)
    else:
        result = mixed(slice(None))
    return rearrange(result, "b h n e -> b n h e").astype(value.dtype)


def _rows(x: Array, rows: slice) -> Array:
    """The part for some queries of what broadcasts to (b, h, n, m)."""
    return x[..., rows, :] if x.ndim > 1 and x.shape[-2] > 1 else x


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
      qk_norm: norm of queries and keys per head, one of `fae_jax.nn.norms.NORMS`, or empty; in LightningDiT that
        of the blocks, with ε = 10⁻⁵ for LayerNorm here alone.
      scale: what the products q kᵀ are multiplied by; None for 1/√head_width.
      dtype: dtype of the matrix products; parameters stay float32.
      kernel: see `attention`.
    """

    heads: int
    head_width: int
    qkv_bias: bool = True
    out_bias: bool = True
    qk_norm: str = ""
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
        linear = functools.partial(Dense, dtype=self.dtype, kernel_init=nn.initializers.xavier_uniform())
        joint = linear((3, self.heads, self.head_width), use_bias=self.qkv_bias, name="qkv")
        # Split, not indexed: the gradient of a split is one concatenation, of an index a sum of padded arrays.
        query, key, value = (part[:, :, 0] for part in jnp.split(tag(joint(x), "qkv"), 3, axis=2))
        if self.qk_norm:
            norm = functools.partial(make_norm, self.qk_norm, epsilon=1e-6 if self.qk_norm == "rms" else 1e-5)
            query = norm(name="query_norm")(query).astype(self.dtype)
            key = norm(name="key_norm")(key).astype(self.dtype)
        if rotary is not None:
            query, key = apply_rotary(query, *rotary), apply_rotary(key, *rotary)
        mixed = attention(query, key, value, mask=mask, bias=bias, scale=self.scale, kernel=self.kernel)
        mixed = tag(mixed, "attended")
        return linear(x.shape[-1], use_bias=self.out_bias, name="out")(rearrange(mixed, "b n h d -> b n (h d)"))
