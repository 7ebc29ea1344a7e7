"""Norms, feed-forwards, blocks, and stacks that do not depend on how they are compiled."""

import functools

import jax
import jax.numpy as jnp
import network_reference as reference
import numpy as np
import pytest
from flax import linen as nn
from network_reference import assert_close, parameters

from fae_jax.nn.blocks import FEED_FORWARDS, REMAT_POLICIES, Block, FeedForward, stack
from fae_jax.nn.embeddings import rotary_table
from fae_jax.nn.norms import NORMS, make_norm

GRID = (2, 3)


def inputs(b=2, n=6, d=16, seed=0):
    return np.random.default_rng(seed).normal(0.5, 2.0, size=(b, n, d)).astype(np.float32)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("kind", NORMS)
def test_norms(kind, affine):
    x = inputs()
    module = make_norm(kind, affine=affine, epsilon=1e-3)
    params = parameters(module, jnp.asarray(x))
    assert set(params) == (({"scale", "bias"} if kind == "layer" else {"scale"}) if affine else set())
    got = jax.jit(module.apply)({"params": params}, jnp.asarray(x))
    assert_close(got, reference.NORMS[kind](params, x.astype(np.float64), 1e-3))
    assert jax.jit(module.apply)({"params": params}, jnp.asarray(x, jnp.bfloat16)).dtype == jnp.float32


def test_a_layer_norm_bears_a_mean_of_a_thousand():
    x = 1000 + inputs(d=1024)
    got = jax.jit(make_norm("layer", affine=False).apply)({}, jnp.asarray(x))
    assert_close(got, reference.layer_norm({}, x.astype(np.float64)), 1e-4)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", FEED_FORWARDS)
def test_feed_forwards(kind, bias):
    x = inputs()
    module = FeedForward(kind, 20, bias=bias)
    params = parameters(module, jnp.asarray(x))
    got = jax.jit(module.apply)({"params": params}, jnp.asarray(x))
    assert_close(got, reference.feed_forward(params, x.astype(np.float64), kind))


def test_the_two_gelus_differ():
    x = np.linspace(-3, 3, 50)
    assert 1e-4 < np.abs(reference.gelu(x) - reference.gelu_tanh(x)).max() < 1e-2


@pytest.mark.parametrize(
    ("norm", "feed_forward", "rotate"), [("rms", "swiglu", True), ("layer", "gelu", False), ("layer", "swiglu", True)]
)
def test_block(norm, feed_forward, rotate):
    x = inputs()
    rotary = tuple(map(jnp.asarray, rotary_table(8, GRID))) if rotate else None
    module = Block(2, 8, 20, norm=norm, norm_epsilon=1e-5, feed_forward=feed_forward)
    params = parameters(module, jnp.asarray(x), rotary)
    want = reference.block(
        params, x.astype(np.float64), 2, norm=norm, kind=feed_forward, grid=GRID if rotate else None, epsilon=1e-5
    )
    assert_close(jax.jit(module.apply)({"params": params}, jnp.asarray(x), rotary), want)


def test_block_with_every_switch_of_the_encoders():
    """LayerScale, no biases, a scale of its own for the logits, a mask and a bias on them."""
    x = inputs()
    mask = np.random.default_rng(1).random((2, 2, 6, 6)) < 0.7
    mask[..., 0] = True
    bias = np.random.default_rng(2).normal(size=(2, 2, 6, 6)).astype(np.float32)
    without = {"qkv_bias": False, "out_bias": False, "feed_forward_bias": False}
    module = Block(2, 8, 20, layer_scale=0.1, attention_scale=0.7, **without)
    arguments = (jnp.asarray(x), None, jnp.asarray(mask), jnp.asarray(bias))
    start = jax.jit(module.init)(jax.random.key(0), *arguments)["params"]
    for name in ("attention_scale", "feed_forward_scale"):
        np.testing.assert_array_equal(start[name], np.full(16, np.float32(0.1)))
    assert not [
        path for path, _ in jax.tree_util.tree_leaves_with_path(start) if "bias" in jax.tree_util.keystr(path)
    ]
    params = parameters(module, *arguments)
    want = reference.block(params, x.astype(np.float64), 2, norm="rms", mask=mask, bias=bias, scale=0.7)
    assert_close(jax.jit(module.apply)({"params": params}, *arguments), want)


class Tower(nn.Module):
    """Three blocks."""

    scan: bool
    remat: str = "none"
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        block = functools.partial(Block, 2, 8, 20, dtype=self.dtype)
        return stack(block, 3, x, rotary_table(8, GRID), scan=self.scan, remat=self.remat)[0]


def tower_params(spread=0.2):
    x = jnp.asarray(inputs())
    return {"params": parameters(Tower(scan=True), x, spread=spread)}


@functools.cache
def start(scan, remat):
    return jax.jit(Tower(scan=scan, remat=remat).init)(jax.random.key(1), jnp.asarray(inputs()))


@functools.cache
def evaluated(scan, remat):
    """Output, and gradients of a sum of sines with respect to parameters and input."""

    def loss(params, x):
        output = Tower(scan=scan, remat=remat).apply(params, x)
        return jnp.sum(jnp.sin(output)), output

    step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    (_, output), gradients = step(tower_params(), jnp.asarray(inputs()))
    return output, gradients


def test_a_stack_applies_its_blocks_in_order():
    x, params = inputs(), tower_params()
    want = x.astype(np.float64)
    for i in range(3):
        one = reference.layer(params["params"]["blocks"]["block"], i)
        want = reference.block(one, want, 2, norm="rms", grid=GRID)
    assert_close(jax.jit(Tower(scan=True).apply)(params, jnp.asarray(x)), want)


@pytest.mark.parametrize("scan", [True, False])
@pytest.mark.parametrize("remat", REMAT_POLICIES)
def test_compilation_changes_neither_parameters_nor_outputs_nor_gradients(scan, remat):
    jax.tree.map(np.testing.assert_array_equal, start(scan, remat), start(True, "none"))
    (output, gradients), (want_output, want) = evaluated(scan, remat), evaluated(True, "none")
    assert_close(output, want_output)
    jax.tree.map(lambda a, b: assert_close(a, b, 1e-4), gradients, want)


def test_blocks_of_a_stack_start_differently():
    kernel = np.asarray(start(True, "none")["params"]["blocks"]["block"]["attention"]["qkv"]["kernel"])
    assert len({layer.tobytes() for layer in kernel}) == 3
    # Xavier by one block's fans, not by the stack's: the variance is 2 / (16 + 48)
    assert kernel.var() == pytest.approx(2 / 64, rel=0.1)


@pytest.mark.parametrize("scan", [True, False])
def test_remat_keeps_less_for_the_backward_pass(scan):
    x, params = jnp.asarray(inputs()), tower_params()

    def kept(remat):
        tower = Tower(scan=scan, remat=remat)
        backward = jax.eval_shape(lambda p: jax.vjp(lambda p: tower.apply(p, x), p)[1], params)
        return sum(leaf.size for leaf in jax.tree.leaves(backward))

    assert kept("full") < kept("dots") < kept("none")


def test_bfloat16_is_close_and_keeps_float32_parameters():
    x, params = jnp.asarray(inputs()), tower_params(spread=0.1)
    exact = jax.jit(Tower(scan=True).apply)(params, x)
    half = Tower(scan=True, dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(jax.eval_shape(half.init, jax.random.key(0), x))} == {
        jnp.dtype("float32")
    }
    out = jax.jit(half.apply)(params, x)
    assert out.dtype == jnp.float32  # the residual stream has the dtype of the input
    assert_close(out, exact, 0.03)
    low = jax.jit(half.apply)(params, x.astype(jnp.bfloat16))
    assert low.dtype == jnp.bfloat16
    assert_close(low, exact, 0.05)


def test_unknown_names():
    x = jnp.asarray(inputs())
    with pytest.raises(ValueError, match="norm 'batch' is unknown; choose one of rms, layer"):
        make_norm("batch")
    with pytest.raises(ValueError, match="feed-forward 'tanh' is unknown"):
        FeedForward("tanh", 4).init(jax.random.key(0), x)
    with pytest.raises(ValueError, match="remat policy 'some' is unknown; choose one of none, full, dots"):
        Tower(scan=True, remat="some").init(jax.random.key(0), x)
