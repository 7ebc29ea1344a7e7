"""The diffusion transformer: its count, its equations, its start, and values of LightningDiT and SiT themselves."""

import jax
import jax.numpy as jnp
import network_reference as reference
import numpy as np
import pytest
from network_reference import assert_close, parameters

from fae_jax.generators.networks.dit import DiT

GRID = (3, 4)
SIT = {"norm": "layer", "feed_forward": "gelu_tanh", "rotary": False}


def small(**changes):
    fields = {"grid": GRID, "classes": 7, "width": 24, "depth": 3, "heads": 2, "hidden": 40}
    return DiT(**{**fields, **changes})


def inputs(b=3, n=12, c=5, seed=0):
    z = np.random.default_rng(seed).normal(size=(b, n, c)).astype(np.float32)
    return jnp.asarray(z), jnp.linspace(0.0, 1.0, b), jnp.arange(b) % 7


def params_of(module, spread=0.2):
    return {"params": parameters(module, *inputs(), spread=spread)}


def test_parameters_of_the_paper():
    module = DiT((16, 16), 1000, width=1152, depth=28, heads=16, hidden=3072)
    arguments = (jnp.zeros((1, 256, 32)), jnp.zeros(1), jnp.zeros(1, jnp.int32))
    shapes = jax.eval_shape(module.init, jax.random.key(0), *arguments)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) + module.fixed_values == 675_256_736


@pytest.mark.parametrize(
    "switches",
    [
        {},
        {"scan": False},
        SIT,
        {"qk_norm": True, "time_scale": 1000.0},
        {"norm": "layer", "scan": False},
        {"rotary": False},
    ],
)
def test_is_the_reference(switches):
    module = small(**switches)
    z, t, y = inputs()
    params = params_of(module)
    want = reference.dit(
        params["params"],
        np.asarray(z, np.float64),
        np.asarray(t),
        np.asarray(y),
        2,
        GRID,
        norm=module.norm,
        kind=module.feed_forward,
        rotate=module.rotary,
        time_scale=module.time_scale,
    )
    assert_close(jax.jit(module.apply)(params, z, t, y), want, 1e-5 if module.time_scale == 1 else 1e-4)


@pytest.mark.parametrize(
    ("switches", "rows", "energy"),
    [
        (
            {"hidden": 40},
            [
                [-1.77769, -0.02301, -3.6053, -2.93814, 1.35592],
                [-2.14326, -0.76486, -3.33701, -3.91177, 0.70679],
                [-2.06021, 0.28884, -1.87509, -3.66557, 1.14717],
            ],
            2.3695545,
        ),
        (
            {"hidden": 60, **SIT},
            [
                [-0.7336, 0.40469, 2.18644, 0.28269, -0.47508],
                [0.60353, 0.16053, 2.05046, 0.0608, -0.4473],
                [3.65265, -2.03791, 3.22493, -1.17147, -2.36461],
            ],
            1.7122962,
        ),
    ],
    ids=["LightningDiT", "SiT"],
)
def test_values_of_lightningdit_itself(switches, rows, energy):
    """Printed by the forward pass of hustvl/LightningDiT at 2725fed (torch 2.13, float32), given these parameters.

    Its switches were swiglu, rope and rmsnorm on (LightningDiT) and all off (SiT), without qk-norm; 5 channels on
    a 4×4 grid, patch 1. The draw of the parameters follows the order of their names.
    """
    module = small(grid=(4, 4), **switches)
    latents = np.random.default_rng(11).normal(size=(3, 16, 5)).astype(np.float32)
    times, labels = jnp.asarray([0.0, 0.37, 1.0]), jnp.asarray([0, 7, 3])
    params = parameters(module, jnp.asarray(latents), times, labels, seed=12)
    out = np.asarray(jax.jit(module.apply)({"params": params}, jnp.asarray(latents), times, labels), np.float64)
    np.testing.assert_allclose(out[[0, 1, 2], [0, 6, 15]], rows, atol=5e-5)
    assert np.sqrt((out**2).mean()) == pytest.approx(energy, rel=1e-5)


def test_remat_changes_neither_outputs_nor_gradients():
    z, t, y = inputs()
    params = params_of(small(depth=2))

    def value_and_gradient(module):
        loss = lambda params, z: jnp.sum(jnp.sin(module.apply(params, z, t, y)))
        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(params, z)

    want = value_and_gradient(small(depth=2))
    for remat, scan in (("full", True), ("dots", False)):
        got = value_and_gradient(small(depth=2, remat=remat, scan=scan))
        jax.tree.map(lambda a, b: assert_close(a, b, 1e-4), got, want)


def test_starts_at_zero_and_can_leave_it():
    module, (z, t, y) = small(), inputs()
    params, apply = jax.jit(module.init)(jax.random.key(0), z, t, y), jax.jit(module.apply)
    np.testing.assert_array_equal(apply(params, z, t, y), 0.0)
    gradient = jax.jit(jax.grad(lambda p: jnp.sum((apply(p, z, t, y) - z) ** 2)))(params)["params"]
    assert np.abs(gradient["to_velocity"]["kernel"]).max() > 0
    # with the gates at zero a block is the identity, so before the last layer the blocks do nothing
    opened = jax.tree.map(lambda leaf: leaf, params)
    opened["params"]["to_velocity"]["kernel"] = jnp.ones_like(params["params"]["to_velocity"]["kernel"])
    moved = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf + 1.0 if "feed_forward'" in jax.tree_util.keystr(path) else leaf, opened
    )
    np.testing.assert_array_equal(apply(moved, z, t, y), apply(opened, z, t, y))


def test_last_label_is_no_class_and_belongs_to_nobody_else():
    module, (z, t, _) = small(), inputs()
    params, apply = params_of(module), jax.jit(module.apply)
    table = params["params"]["label"]["table"]
    assert table.shape == (8, 24)
    labels = jnp.asarray([7, 6, 7])
    before = apply(params, z, t, labels)
    changed = {"params": {**params["params"], "label": {"table": jnp.asarray(table).at[7].add(1.0)}}}
    moved = np.abs(np.asarray(apply(changed, z, t, labels) - before)).max((1, 2))
    assert (moved > 1e-3).tolist() == [True, False, True]


def test_each_example_has_its_own_time_and_label():
    module, (z, t, y) = small(), inputs()
    params, apply = params_of(module), jax.jit(module.apply)
    whole = apply(params, z, t, y)
    others = jnp.asarray([2, 1, 0])
    np.testing.assert_allclose(apply(params, z[others], t[others], y[others])[1], whole[1], atol=1e-4)
    swapped = apply(params, z, t, y[::-1])
    moved = np.abs(np.asarray(swapped - whole)).max((1, 2)) > 1e-3
    assert moved.tolist() == [True, False, True]


def test_bfloat16_is_close_and_answers_in_float32():
    z, t, y = inputs()
    params = params_of(small(), spread=0.1)
    half = small(dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(jax.eval_shape(half.init, jax.random.key(0), z, t, y))} == {
        jnp.dtype("float32")
    }
    out = jax.jit(half.apply)(params, z, t, y)
    assert out.dtype == jnp.float32
    assert_close(out, jax.jit(small().apply)(params, z, t, y), 0.03)


def test_wrong_shapes_are_refused():
    _, t, y = inputs()
    with pytest.raises(ValueError, match="got 9 tokens where the grid is 3×4 = 12"):
        small().init(jax.random.key(0), inputs(n=9)[0], t, y)
    with pytest.raises(ValueError, match="a width of 24 cannot be split into 5 heads"):
        small(heads=5).init(jax.random.key(0), *inputs())
