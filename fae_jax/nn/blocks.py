"""The pieces transformers are built of: feed-forwards, a pre-norm block, and a stack of blocks.

A block is   x ← x + Attention(Norm(x));  x ← x + FeedForward(Norm(x)),      (1)
with each branch multiplied by a learned vector per channel where LayerScale is asked for.

`stack` repeats a block with parameters stacked along a leading depth axis, whether the loop is compiled
once (`scan=True`) or unrolled: a checkpoint does not depend on how it was compiled.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fae_jax.nn.attention import SelfAttention
from fae_jax.nn.dense import Dense
from fae_jax.nn.embeddings import Rotary
from fae_jax.nn.norms import make_norm
from fae_jax.nn.tags import tag

ACTIVATIONS = {
    "gelu": functools.partial(nn.gelu, approximate=False),
    "gelu_tanh": functools.partial(nn.gelu, approximate=True),
    "gelu_quick": lambda x: x * nn.sigmoid(1.702 * x),
    "relu": nn.relu,
}
GATED = {"swiglu": nn.silu, "geglu": ACTIVATIONS["gelu"], "geglu_tanh": ACTIVATIONS["gelu_tanh"]}
FEED_FORWARDS = (*GATED, *ACTIVATIONS)
# name → what is kept of each block for the backward pass beside the stream between blocks; the rest is computed again
_saved = jax.checkpoint_policies.save_only_these_names
REMAT_POLICIES = {
    "none": None,  # everything
    "full": jax.checkpoint_policies.nothing_saveable,  # nothing
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,  # results of products with weights
    "attention": _saved("attended"),  # attention is not run again for the feed-forward's sake
    "qkv": _saved("qkv", "attended"),  # and its inputs are kept
    "branches": _saved("qkv", "attended", "feed_forward_input"),  # both branches begin from what is kept
}


class FeedForward(nn.Module):
    """Gated kinds: W₃(act(W₁x) · W₂x), with W₁ and W₂ in one product; the others: W₂ act(W₁x).

    Attributes:
      kind: one of `FEED_FORWARDS`; `swiglu` is gated by SiLU, `geglu` by GELU, `gelu_quick` is x σ(1.702 x).
      hidden: inner width.
      bias: whether the linears carry one.
    """

    kind: str
    hidden: int
    dtype: jnp.dtype = jnp.float32
    bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        linear = functools.partial(
            Dense, use_bias=self.bias, dtype=self.dtype, kernel_init=nn.initializers.xavier_uniform()
        )
        if self.kind in GATED:
            joint = linear((2, self.hidden), name="gate_and_value")(x)
            gate, value = (part[..., 0, :] for part in jnp.split(tag(joint, "gate_and_value"), 2, axis=-2))
            hidden = GATED[self.kind](gate) * value
        elif self.kind in ACTIVATIONS:
            hidden = ACTIVATIONS[self.kind](linear(self.hidden, name="hidden")(x))
        else:
            raise ValueError(f"feed-forward {self.kind!r} is unknown; choose one of {', '.join(FEED_FORWARDS)}")
        return linear(x.shape[-1], name="out")(tag(hidden, "hidden"))


class Block(nn.Module):
    """Equation (1): a pre-norm transformer block.

    Attributes:
      heads, head_width: shape of the attention.
      hidden: inner width of the feed-forward.
      norm: one of `fae_jax.nn.norms.NORMS`.
      feed_forward: one of `FEED_FORWARDS`.
      qkv_bias, out_bias, feed_forward_bias: whether those linears carry a bias.
      layer_scale: initial value of a learned factor per channel on both branches; None for none.
      attention_scale: see `SelfAttention.scale`.
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
    qkv_bias: bool = True
    out_bias: bool = True
    feed_forward_bias: bool = True
    layer_scale: float | None = None
    attention_scale: float | None = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b n d"],
        rotary: Rotary | None = None,
        mask: Bool[Array, "..."] | None = None,
        bias: Float[Array, "..."] | None = None,
    ) -> Float[Array, "b n d"]:
        def norm(name: str, h: Array) -> Array:
            return make_norm(self.norm, epsilon=self.norm_epsilon, name=name)(h).astype(self.dtype)

        def scaled(name: str, branch: Array) -> Array:
            if self.layer_scale is None:
                return branch.astype(x.dtype)
            init = nn.initializers.constant(self.layer_scale)
            return (branch * self.param(name, init, (x.shape[-1],))).astype(x.dtype)

        attend = SelfAttention(
            self.heads,
            self.head_width,
            qkv_bias=self.qkv_bias,
            out_bias=self.out_bias,
            scale=self.attention_scale,
            dtype=self.dtype,
            kernel=self.kernel,
            name="attention",
        )
        x = x + scaled("attention_scale", attend(norm("attention_norm", x), rotary, mask, bias))
        feed = FeedForward(
            self.feed_forward, self.hidden, dtype=self.dtype, bias=self.feed_forward_bias, name="feed_forward"
        )
        normed = tag(norm("feed_forward_norm", x), "feed_forward_input")
        return x + scaled("feed_forward_scale", feed(normed))


def stack(
    block: Callable[..., nn.Module],
    depth: int,
    x: Float[Array, "b n d"],
    *shared: object,
    scan: bool,
    remat: str,
    keep: bool = False,
    after: int = 0,
    name: str = "blocks",
) -> tuple[Float[Array, "b n d"], Float[Array, "depth b n d"] | Float[Array, "b n d"] | None]:
    """Applies `depth` blocks built by `block(name=…)` to `x`; `shared` goes to each of them unchanged.

    Call it inside a `@nn.compact` method. Parameters lie under `name` with a leading axis of size `depth`.

    Args:
      scan: compile the block once and loop over it; otherwise unroll (faster to run on a CPU).
      remat: what the backward pass keeps, a key of `REMAT_POLICIES`.
      keep: also return the output of every block, else None.
      after: also return the output of the block of that number, 1 the first, else None; not together with `keep`.

    Raises:
      ValueError: `remat` is unknown.
    """
    if remat not in REMAT_POLICIES:
        raise ValueError(f"remat policy {remat!r} is unknown; choose one of {', '.join(REMAT_POLICIES)}")

    class Body(nn.Module):
        @nn.compact
        def __call__(self, carry: Any, *rest: object) -> tuple[Any, Array | None]:
            x, *kept = carry if after else (carry,)
            x = tag(block(name="block")(x, *rest), "stream")
            if after:
                tokens, number = kept
                return (x, jax.lax.select(number == after, x, tokens), number + 1), None
            return x, x if keep else None

    x = tag(x, "stream")
    body = Body if remat == "none" else nn.remat(Body, policy=REMAT_POLICIES[remat], prevent_cse=not scan)
    loop = nn.scan(
        body,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=(nn.broadcast,) * len(shared),
        length=depth,
        unroll=1 if scan else depth,
    )
    carry, every = loop(name=name)((x, x, jnp.ones((), jnp.int32)) if after else x, *shared)
    return carry[:2] if after else (carry, every)
