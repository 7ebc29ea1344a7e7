"""Linears are `nn.Dense`; a joint one keeps its output's axes apart, and products are of two matrices."""

import re

import flax.linen as nn
import jax
import numpy as np
import pytest

from fae_jax.nn.dense import Dense, JointDense, flat_dot_general
from fae_jax.nn.tags import placing


@pytest.mark.parametrize("shape", [(8,), (5, 8), (2, 5, 8)])
def test_dense_is_flax_dense(shape):
    x = jax.random.normal(jax.random.key(0), shape)
    ours, theirs = Dense(24), nn.Dense(24)
    params = ours.init(jax.random.key(1), x)
    jax.tree.map(np.testing.assert_array_equal, params, theirs.init(jax.random.key(1), x))
    np.testing.assert_allclose(ours.apply(params, x), theirs.apply(params, x), atol=1e-6)


def test_other_dimensions_are_refused():
    x = jax.numpy.ones((2, 5, 8))
    with pytest.raises(ValueError, match="only x's last axis"):
        flat_dot_general(x, jax.numpy.ones((5, 3)), (((1,), (0,)), ((), ())))


def products(module, x):
    """(left, right) shapes, as "10x8", of every product in a module's forward and backward passes."""
    params = module.init(jax.random.key(1), x)
    loss = lambda params, x: (module.apply(params, x) ** 2).sum()  # noqa: E731
    program = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(params, x).as_text()
    return re.findall(r"stablehlo.dot_general .*: \(tensor<([\dx]+)xf32>, tensor<([\dx]+)xf32>\)", program)


@pytest.mark.parametrize("module", [Dense(24), JointDense((3, 2, 4))])
def test_products_are_of_matrices_on_one_device(module):
    shapes = products(module, jax.random.normal(jax.random.key(0), (2, 5, 8)))
    assert len(shapes) == 3 and all(shape.count("x") == 1 for pair in shapes for shape in pair)


def test_on_a_mesh_heads_stay_an_axis_of_the_product():
    with placing(lambda x, name: x):
        shapes = products(JointDense((3, 2, 4)), jax.random.normal(jax.random.key(0), (2, 5, 8)))
    assert shapes[0] == ("10x8", "8x3x2x4")


def test_a_joint_linear_is_a_dense_layer_with_the_same_parameters():
    x = jax.random.normal(jax.random.key(0), (2, 5, 8))
    joint, dense = JointDense((3, 2, 4)), nn.Dense(24, kernel_init=nn.initializers.xavier_uniform())
    ours, theirs = (module.init(jax.random.key(1), x)["params"] for module in (joint, dense))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    ours["bias"] = jax.random.normal(jax.random.key(2), (24,))
    expected = dense.apply({"params": ours}, x).reshape(2, 5, 3, 2, 4)
    np.testing.assert_allclose(joint.apply({"params": ours}, x), expected, atol=1e-6)
    assert "bias" not in JointDense((2, 3), use_bias=False).init(jax.random.key(1), x)["params"]


def test_only_the_product_is_in_the_low_precision():
    x = jax.random.normal(jax.random.key(0), (2, 5, 8))
    module = JointDense((2, 3), dtype=jax.numpy.bfloat16)
    params = module.init(jax.random.key(1), x)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"float32"}
    assert module.apply(params, x).dtype == jax.numpy.bfloat16
