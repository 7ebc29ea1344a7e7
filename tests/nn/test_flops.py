"""Counted multiply-adds against hand counts, and against XLA's own count of a program without loops."""

import jax
import jax.numpy as jnp
import pytest

from fae_jax.nn.blocks import Block
from fae_jax.nn.flops import multiply_adds


def shape(*extents: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(extents, jnp.float32)


def test_products_batched_products_and_convolutions():
    assert multiply_adds(jnp.matmul, shape(5, 7), shape(7, 3)) == 5 * 7 * 3
    assert multiply_adds(jnp.matmul, shape(4, 5, 7), shape(4, 7, 3)) == 4 * 5 * 7 * 3

    def convolve(x: jax.Array, kernel: jax.Array, groups: int = 1) -> jax.Array:
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, kernel, (2, 2), "SAME", dimension_numbers=numbers, feature_group_count=groups
        )

    assert multiply_adds(convolve, shape(2, 8, 8, 6), shape(3, 3, 6, 10)) == 2 * 4 * 4 * 10 * 9 * 6
    grouped = lambda x, kernel: convolve(x, kernel, 3)
    assert multiply_adds(grouped, shape(2, 8, 8, 6), shape(3, 3, 2, 12)) == 2 * 4 * 4 * 12 * 9 * 2


def test_loops_count_every_turn_and_branches_their_dearest_side():
    product = lambda x, w: x @ w
    looped = lambda x, w: jax.lax.scan(lambda c, _: (product(c, w), None), x, None, length=9)[0]
    assert multiply_adds(looped, shape(2, 4), shape(4, 4)) == 9 * 2 * 4 * 4
    assert multiply_adds(jax.checkpoint(jax.jit(looped)), shape(2, 4), shape(4, 4)) == 9 * 2 * 4 * 4
    turns = lambda x, w: jax.lax.fori_loop(0, 5, lambda _, c: product(c, w), x)
    assert multiply_adds(turns, shape(2, 4), shape(4, 4)) == 5 * 2 * 4 * 4
    chosen = lambda p, x, w: jax.lax.cond(p, lambda: x @ w @ w, lambda: x)
    assert multiply_adds(chosen, jax.ShapeDtypeStruct((), bool), shape(2, 4), shape(4, 4)) == 2 * 2 * 4 * 4


def test_a_backward_pass_is_two_products_for_each():
    loss = lambda w, x: jnp.sum(jnp.tanh(x @ w) ** 2)
    both = lambda w, x: jax.grad(loss, argnums=(0, 1))(w, x)
    assert multiply_adds(both, shape(8, 16), shape(4, 8)) == 3 * 4 * 8 * 16


def test_a_loop_without_a_fixed_number_of_turns_is_refused():
    endless = lambda x, w: jax.lax.while_loop(lambda c: jnp.sum(c) < 1, lambda c: c @ w, x)
    with pytest.raises(ValueError, match="its number of turns is not fixed"):
        multiply_adds(endless, shape(2, 4), shape(4, 4))


def test_a_block_costs_what_xla_says_it_does():
    block = Block(2, 64, 256, kernel="xla")
    x = shape(2, 64, 128)
    params = jax.eval_shape(block.init, jax.random.key(0), x)
    xla = jax.jit(block.apply).lower(params, x).cost_analysis()["flops"]
    ours = multiply_adds(block.apply, params, x)
    by_hand = 2 * (64 * 128 * (4 * 128 + 3 * 256) + 2 * 64 * 64 * 128)
    assert ours == by_hand
    assert 1 <= xla / (2 * ours) < 1.03  # XLA also counts norms, softmax and activations
