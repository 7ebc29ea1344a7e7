"""A joint linear is `nn.Dense` with its output's axes kept apart."""

import flax.linen as nn
import jax
import numpy as np

from fae_jax.nn.joint import JointDense


def test_it_is_a_dense_layer_with_the_same_parameters():
    x = jax.random.normal(jax.random.key(0), (2, 5, 8))
    joint, dense = JointDense((3, 2, 4)), nn.Dense(24, kernel_init=nn.initializers.xavier_uniform())
    ours, theirs = (module.init(jax.random.key(1), x)["params"] for module in (joint, dense))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    ours["bias"] = jax.random.normal(jax.random.key(2), (24,))
    wanted = dense.apply({"params": ours}, x).reshape(2, 5, 3, 2, 4)
    np.testing.assert_allclose(joint.apply({"params": ours}, x), wanted, atol=1e-6)
    assert "bias" not in JointDense((2, 3), use_bias=False).init(jax.random.key(1), x)["params"]


def test_only_the_product_is_in_the_low_precision():
    x = jax.random.normal(jax.random.key(0), (2, 5, 8))
    module = JointDense((2, 3), dtype=jax.numpy.bfloat16)
    params = module.init(jax.random.key(1), x)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"float32"}
    assert module.apply(params, x).dtype == jax.numpy.bfloat16
