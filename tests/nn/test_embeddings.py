"""Patches, positions, times and labels."""

import jax
import jax.numpy as jnp
import network_reference as reference
import numpy as np
import pytest
from network_reference import assert_close, parameters

from fae_jax.nn.embeddings import (
    LabelEmbedding,
    PositionTable,
    TimeEmbedding,
    check_tokens,
    patchify,
    sincos_table,
    unpatchify,
)


def test_patches_go_row_by_row_and_come_back():
    images = np.random.default_rng(0).normal(size=(2, 6, 8, 3)).astype(np.float32)
    tokens = patchify(jnp.asarray(images), 2)
    assert tokens.shape == (2, 12, 12)
    np.testing.assert_array_equal(tokens[1, 5], images[1, 2:4, 2:4].reshape(-1))  # token 5 is row 1, column 1
    np.testing.assert_array_equal(unpatchify(tokens, (3, 4), 2), images)


@pytest.mark.parametrize("grid", [(4, 4), (2, 5)])
def test_sincos_table(grid):
    assert_close(sincos_table(24, grid), reference.sincos(24, grid), 1e-6)
    with pytest.raises(ValueError, match="multiple of 4, got 26"):
        sincos_table(26, grid)


def test_sincos_table_of_the_papers_size():
    table = sincos_table(1152, (16, 16))
    assert table.shape == (256, 1152)
    # MAE's published function: channel 0 is sin(x), 288 cos(x), 576 sin(y), 864 cos(y)
    np.testing.assert_allclose(
        table[3 * 16 + 5, [0, 288, 576, 864]], [np.sin(5), np.cos(5), np.sin(3), np.cos(3)], atol=1e-6
    )


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_time_embedding(scale):
    times = np.float32([0.0, 1e-3, 0.5, 0.714, 1.0])
    module = TimeEmbedding(12, scale=scale)
    params = parameters(module, jnp.asarray(times))
    assert_close(
        jax.jit(module.apply)({"params": params}, jnp.asarray(times)),
        reference.time_embedding(params, times, scale),
        1e-4 if scale > 1 else 1e-5,
    )


def test_times_stay_in_float32_when_given_in_bfloat16():
    module = TimeEmbedding(12, scale=1000.0)
    params, apply = {"params": parameters(module, jnp.ones(1))}, jax.jit(module.apply)
    times = jnp.asarray([0.33203125, 0.5, 1.0])  # exact in bfloat16, but not once they are multiplied by 1000
    got = apply(params, times.astype(jnp.bfloat16))
    assert got.dtype == jnp.float32
    np.testing.assert_array_equal(got, apply(params, times))


def test_labels_look_up_their_row_and_the_last_is_no_class():
    module = LabelEmbedding(classes=5, width=3)
    params = module.init(jax.random.key(0), jnp.zeros(1, jnp.int32))
    table = params["params"]["table"]
    assert table.shape == (6, 3)
    np.testing.assert_array_equal(
        jax.jit(module.apply)(params, jnp.asarray([5, 0, 2])), table[jnp.asarray([5, 0, 2])]
    )
    assert np.isnan(jax.jit(module.apply)(params, jnp.asarray([6]))).all()  # out of range is loud, not the last row


def test_position_table_is_added():
    x = jnp.ones((2, 4, 3))
    module = PositionTable(4)
    params = module.init(jax.random.key(0), x)
    np.testing.assert_allclose(
        jax.jit(module.apply)(params, x), 1 + np.broadcast_to(params["params"]["table"], (2, 4, 3))
    )
    assert jax.jit(module.apply)(params, x.astype(jnp.bfloat16)).dtype == jnp.bfloat16


def test_wrong_number_of_tokens():
    check_tokens(6, (2, 3))
    with pytest.raises(ValueError, match="got 7 tokens where the grid is 2×3 = 6"):
        check_tokens(7, (2, 3))
