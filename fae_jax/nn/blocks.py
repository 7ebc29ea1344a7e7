"""The pieces transformers are built of: norms, feed-forwards, a pre-norm block, and a stack of blocks.

A block is   x ← x + Attention(Norm(x));  x ← x + FeedForward(Norm(x)).      (1)

`stack` repeats a block with parameters stacked along a leading depth axis, whether the loop is compiled
once (`scan=True`) or unrolled: a checkpoint does not depend on how it was compiled.
"""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fae_jax.nn.attention import SelfAttention

NORMS = ("rms", "layer")
FEED_FORWARDS = ("swiglu", "gelu", "gelu_tanh")
REMAT_POLICIES = {
    "none": None,
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


def make_norm(kind: str, *, epsilon: float = 1e-6, affine: bool = True, name: str | None = None) -> nn.Module:
    """A float32 norm over channels: `rms` (weight) or `layer` (weight and bias).

    Raises:
      ValueError: `kind` is not one of `NORMS`.
    """
    if kind == "rms":
        return nn.RMSNorm(epsilon=epsilon, use_scale=affine, dtype=jnp.float32, name=name)
    if kind == "layer":
        return nn.LayerNorm(epsilon=epsilon, use_scale=affine, use_bias=affine, dtype=jnp.float32, name=name)
    raise ValueError(f"norm {kind!r} is unknown; choose one of {', '.join(NORMS)}")


class FeedForward(nn.Module):
    """`swiglu`: W₃(silu(W₁x) · W₂x), with W₁ and W₂ in one product; `gelu`: W₂ gelu(W₁x); all with biases.

    Attributes:
      kind: one of `FEED_FORWARDS`.
      hidden: inner width.
    """

    kind: str
    hidden: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        init = nn.initializers.xavier_uniform()
        if self.kind == "swiglu":
            joint = nn.Dense(2 * self.hidden, dtype=self.dtype, kernel_init=init, name="gate_and_value")(x)
            gate, value = jnp.split(joint, 2, axis=-1)
            hidden = nn.silu(gate) * value
        elif self.kind in ("gelu", "gelu_tanh"):
            hidden = nn.Dense(self.hidden, dtype=self.dtype, kernel_init=init, name="hidden")(x)
            hidden = nn.gelu(hidden, approximate=self.kind == "gelu_tanh")
        else:
            raise ValueError(f"feed-forward {self.kind!r} is unknown; choose one of {', '.join(FEED_FORWARDS)}")
        return nn.Dense(x.shape[-1], dtype=self.dtype, kernel_init=init, name="out")(hidden)


class Block(nn.Module):
    """Equation (1): a pre-norm transformer block.

    Attributes:
      heads, head_width: shape of the attention.
      hidden: inner width of the feed-forward.
      norm: one of `NORMS`.
      feed_forward: one of `FEED_FORWARDS`.
      dtype: dtype of the matrix products; the residual stream has the dtype of the input.
    """

    heads: int
    head_width: int
    hidden: int
    norm: str = "rms"
    norm_epsilon: float = 1e-6
    feed_forward: str = "swiglu"
    dtype: jnp.dtype = jnp.float32
    kernel: str = "auto"

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"], rotary: tuple[Array, Array] | None = None) -> Float[Array, "b n d"]:
        def norm(name: str, h: Array) -> Array:
            return make_norm(self.norm, epsilon=self.norm_epsilon, name=name)(h).astype(self.dtype)

        attend = SelfAttention(self.heads, self.head_width, dtype=self.dtype, kernel=self.kernel, name="attention")
        x = x + attend(norm("attention_norm", x), rotary).astype(x.dtype)
        feed = FeedForward(self.feed_forward, self.hidden, dtype=self.dtype, name="feed_forward")
        return x + feed(norm("feed_forward_norm", x)).astype(x.dtype)


def stack(
    block: Callable[..., nn.Module],
    depth: int,
    x: Float[Array, "b n d"],
    *shared: object,
    scan: bool,
    remat: str,
    name: str = "blocks",
) -> Float[Array, "b n d"]:
    """Applies `depth` blocks built by `block(name=…)` to `x`; `shared` goes to each of them unchanged.

    Call it inside a `@nn.compact` method. Parameters lie under `name` with a leading axis of size `depth`.

    Args:
      scan: compile the block once and loop over it; otherwise unroll (faster to run on a CPU).
      remat: what the backward pass keeps, a key of `REMAT_POLICIES`.

    Raises:
      ValueError: `remat` is unknown.
    """
    if remat not in REMAT_POLICIES:
        raise ValueError(f"remat policy {remat!r} is unknown; choose one of {', '.join(REMAT_POLICIES)}")

    class Body(nn.Module):
        @nn.compact
        def __call__(self, carry: Array, *rest: object) -> tuple[Array, None]:
            return block(name="block")(carry, *rest), None

    body = Body if remat == "none" else nn.remat(Body, policy=REMAT_POLICIES[remat], prevent_cse=not scan)
    loop = nn.scan(
        body,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=(nn.broadcast,) * len(shared),
        length=depth,
        unroll=1 if scan else depth,
    )
    return loop(name=name)(x, *shared)[0]
