"""Tags: what a remat policy keeps, and that a mesh is given every tagged array."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fae_jax.generators.networks.dit import DiT
from fae_jax.nn.blocks import REMAT_POLICIES
from fae_jax.nn.tags import TAGS, placing

DIT = DiT(grid=(4, 4), classes=3, width=32, depth=2, heads=2, hidden=48, scan=True)
LATENTS = jnp.asarray(np.random.default_rng(0).normal(size=(2, 16, 4)), jnp.float32)
TIME, LABEL = jnp.array([0.2, 0.9]), jnp.array([0, 3], jnp.int32)


@functools.cache
def params():
    made = jax.jit(DIT.init)(jax.random.key(0), LATENTS, TIME, LABEL)["params"]
    leaves, tree = jax.tree.flatten(made)  # zeros of adaLN-zero would hide everything
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return tree.unflatten([x + 0.1 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)])


def loss(policy: str, params):
    return jnp.mean((DIT.clone(remat=policy).apply({"params": params}, LATENTS, TIME, LABEL) - LATENTS) ** 2)


@functools.cache
def gradient(policy: str):
    return jax.jit(jax.grad(functools.partial(loss, policy)))(params())


@pytest.mark.parametrize("policy", [name for name in REMAT_POLICIES if name != "none"])
def test_a_policy_changes_no_gradient(policy: str):
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=2e-6), gradient(policy), gradient("none"))


def kept(policy: str) -> int:
    """Bytes the backward pass keeps, parameters among them."""
    backward = jax.eval_shape(lambda p: jax.vjp(functools.partial(loss, policy), p)[1], params())
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(backward))


def test_a_stronger_policy_keeps_less():
    order = [kept(policy) for policy in ("none", "branches", "qkv", "attention", "full")]
    assert order == sorted(order, reverse=True) and len(set(order)) == len(order), order
    assert kept("full") < kept("dots") < kept("none")


def test_every_tag_reaches_the_placer_with_its_axes():
    seen = {}

    def place(x: jax.Array, name: str) -> jax.Array:
        seen[name] = x.shape
        return x

    with placing(place):
        jax.eval_shape(DIT.apply, {"params": params()}, LATENTS, TIME, LABEL)
    assert seen == {
        "stream": (2, 16, 32),
        "modulation": (2, 192),
        "qkv": (2, 16, 3, 2, 16),
        "attended": (2, 16, 2, 16),
        "feed_forward_input": (2, 16, 32),
        "gate_and_value": (2, 16, 2, 48),
        "hidden": (2, 16, 48),
    }
    assert set(seen) == set(TAGS)
    seen.clear()
    jax.eval_shape(DIT.apply, {"params": params()}, LATENTS, TIME, LABEL)
    assert not seen
