"""Linears are `nn.Dense`; a joint one keeps its output's axes apart, and products are of two matrices."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fae_jax.nn.dense import Dense, weight_gradients
from fae_jax.nn.tags import placing


@pytest.mark.parametrize("shape", [(8,), (5, 8), (2, 5, 8)])
def test_dense_is_flax_dense(shape):
    x = jax.random.normal(jax.random.key(0), shape)
    ours, theirs = Dense(24), nn.Dense(24)
    params = ours.init(jax.random.key(1), x)
    jax.tree.map(np.testing.assert_array_equal, params, theirs.init(jax.random.key(1), x))
    np.testing.assert_allclose(ours.apply(params, x), theirs.apply(params, x), atol=1e-6)


def products(module, x):
    """(left, right) shapes, as "10x8", of every product in a module's forward and backward passes."""
    params = module.init(jax.random.key(1), x)
    loss = lambda params, x: (module.apply(params, x) ** 2).sum()  # noqa: E731
    program = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(params, x).as_text()
    return re.findall(r"stablehlo.dot_general .*: \(tensor<([\dx]+)xf32>, tensor<([\dx]+)xf32>\)", program)


@pytest.mark.parametrize("module", [Dense(24), Dense((3, 2, 4))])
def test_products_are_of_matrices_on_one_device(module):
    shapes = products(module, jax.random.normal(jax.random.key(0), (2, 5, 8)))
    assert len(shapes) == 3 and all(shape.count("x") == 1 for pair in shapes for shape in pair)


def test_on_a_mesh_heads_stay_an_axis_of_the_product():
    with placing(lambda x, name: x):
        shapes = products(Dense((3, 2, 4)), jax.random.normal(jax.random.key(0), (2, 5, 8)))
    assert shapes[0] == ("10x8", "8x3x2x4")


def test_a_joint_linear_is_a_dense_layer_with_the_same_parameters():
    x = jax.random.normal(jax.random.key(0), (2, 5, 8))
    joint, dense = Dense((3, 2, 4)), nn.Dense(24)
    ours, theirs = (module.init(jax.random.key(1), x)["params"] for module in (joint, dense))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    ours["bias"] = jax.random.normal(jax.random.key(2), (24,))
    expected = dense.apply({"params": ours}, x).reshape(2, 5, 3, 2, 4)
    np.testing.assert_allclose(joint.apply({"params": ours}, x), expected, atol=1e-6)
    assert "bias" not in Dense((2, 3), use_bias=False).init(jax.random.key(1), x)["params"]


def test_only_the_product_is_in_the_low_precision():
    x = jax.random.normal(jax.random.key(0), (2, 5, 8))
    module = Dense((2, 3), dtype=jnp.bfloat16)
    params = module.init(jax.random.key(1), x)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"float32"}
    assert module.apply(params, x).dtype == jnp.bfloat16


def test_a_product_in_float32_is_asked_for_as_one():
    """A TPU would round its factors to bfloat16, a GPU to TF32."""
    x = jnp.ones((2, 5, 8))
    for dtype, count in ((jnp.float32, 3), (jnp.bfloat16, 0)):
        module = Dense(4, dtype=dtype)
        params = module.init(jax.random.key(1), x)
        program = str(jax.make_jaxpr(jax.grad(lambda p, x, m=module: m.apply(p, x).sum(), (0, 1)))(params, x))
        assert program.count("Precision.HIGHEST,") == count and program.count("dot_general[") == 3


ROWS = 131_072  # 512 images of 256 tokens


def gradients_of_bfloat16(wire):
    """A bfloat16 product's (gradients of kernel and bias, the same in float64), over `ROWS` rows."""
    random = np.random.default_rng(0)
    x, weights = (random.normal(size=(ROWS, d)).astype(np.float32) for d in (2, 3))
    module = Dense(3, dtype=jnp.bfloat16)
    params = module.init(jax.random.key(0), jnp.asarray(x))
    with weight_gradients(wire):
        gradient = jax.jit(jax.grad(lambda params: (module.apply(params, jnp.asarray(x)) * weights).sum()))
        leaves = re.findall(r"dot_general.* -> tensor<(?:2x3|3x2)x(\w+)>", gradient.lower(params).as_text())
        got = gradient(params)
    assert leaves == [{"float32": "f32", "bfloat16": "bf16"}[wire]]  # a compiler may round later than it is told to
    rounded = [part.astype(jnp.bfloat16).astype(np.float64) for part in (x, weights)]
    return got["params"], {"kernel": rounded[0].T @ rounded[1], "bias": weights.astype(np.float64).sum(0)}


def off(got, want):
    return np.sqrt(np.mean((np.asarray(got, np.float64) - want) ** 2) / np.mean(want**2))


def test_gradients_of_bfloat16_products_are_summed_in_float32():
    got, want = gradients_of_bfloat16("float32")
    assert off(got["bias"], want["bias"]) < 3e-3 and off(got["kernel"], want["kernel"]) < 5e-5


def test_gradients_of_kernels_may_leave_in_bfloat16():
    got, want = gradients_of_bfloat16("bfloat16")
    assert 5e-4 < off(got["kernel"], want["kernel"]) < 5e-3 and off(got["bias"], want["bias"]) < 3e-3


def test_bfloat16_products_have_forward_derivatives_that_can_be_differentiated():
    """As mean flows take them: d/dt of a network inside a loss."""
    module = Dense(4, dtype=jnp.bfloat16)
    x = jax.random.normal(jax.random.key(0), (3, 4))
    params = module.init(jax.random.key(1), x)

    def loss(params):
        y, change = jax.jvp(lambda x: module.apply(params, x), (x,), (jnp.ones_like(x),))
        return ((y - jax.lax.stop_gradient(change)) ** 2).sum().astype(jnp.float32)

    kernel = np.asarray(params["params"]["kernel"], np.float64)
    want = 2 * np.asarray(x, np.float64).T @ (np.asarray(x, np.float64) @ kernel - kernel.sum(0))
    assert off(jax.grad(loss)(params)["params"]["kernel"], want) < 2e-2
