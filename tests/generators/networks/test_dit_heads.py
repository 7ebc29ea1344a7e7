"""What the DiT may have beside its blocks: a head in the middle, a wide one at the end, patches, named sizes."""

import dataclasses

import jax
import jax.numpy as jnp
import network_reference as reference
import numpy as np
import pytest
from network_reference import assert_close, parameters

from fae_jax.conditions.label import ClassLabel
from fae_jax.generators.networks.dit import DiT, DiTSection
from fae_jax.nn.compute import ComputeSection
from fae_jax.nn.embeddings import patchify, unpatchify
from fae_jax.section import validate

GRID = (2, 4)
SIZES = {"grid": GRID, "classes": 7, "width": 24, "depth": 3, "heads": 2, "hidden": 40}
Z = np.random.default_rng(0).normal(size=(3, 8, 5))
T, Y = np.asarray([0.0, 0.4, 1.0]), np.asarray([0, 7, 3])


def made(**changes):
    module = DiT(**{**SIZES, **changes})
    return module, parameters(module, jnp.asarray(Z, jnp.float32), jnp.asarray(T), jnp.asarray(Y))


def run(module, params, **how):
    return jax.jit(lambda *given: module.apply({"params": params}, *given, **how))(
        jnp.asarray(Z, jnp.float32), jnp.asarray(T, jnp.float32), jnp.asarray(Y)
    )


def blocks(p, name, x, condition, heads, grid=GRID):
    for i in range(reference.depth_of(p[name])):
        one = reference.layer(p[name]["block"], i)
        x = block(one, x, condition, heads, grid)
    return x


def block(p, x, condition, heads, grid):
    """Equation (1), of conditions (b, 1, d) or (b, n, d)."""
    b1, s1, g1, b2, s2, g2 = np.split(reference.linear(p["modulation"], reference.silu(condition)), 6, -1)
    normed = (1 + s1) * reference.rms_norm(p["attention_norm"], x) + b1
    x = x + g1 * reference.self_attention(p["attention"], normed, heads, grid)
    normed = (1 + s2) * reference.rms_norm(p["feed_forward_norm"], x) + b2
    return x + g2 * reference.feed_forward(p["feed_forward"], normed, "swiglu")


def end(p, name, out, x, condition):
    shift, scale = np.split(reference.linear(p[f"{name}_modulation"], reference.silu(condition)), 2, -1)
    return reference.linear(p[out], (1 + scale) * reference.rms_norm(p[f"{name}_norm"], x) + shift)


def begun(p):
    """Tokens, embedded times, and c of equation (1)."""
    time = reference.time_embedding(p["time"], T, 1.0)[:, None]
    x = reference.linear(p["embed"], Z) + reference.sincos(24, GRID)
    return x, time, time + np.asarray(p["label"]["table"], np.float64)[Y][:, None]


def test_the_middle_head_reads_a_velocity_and_leaves_the_last_one_alone():
    module, params = made(middle=2)
    assert [reference.depth_of(params[name]) for name in ("blocks", "upper_blocks")] == [2, 1]
    x, _, condition = begun(params)
    x = blocks(params, "blocks", x, condition, 2)
    middle = end(params, "middle", "middle_velocity", x, condition)
    x = blocks(params, "upper_blocks", x, condition, 2)
    last = end(params, "last", "to_velocity", x, condition)
    ours = run(module, params, middle=True, tokens_after=3)
    assert_close(ours[0], last, 1e-5)
    assert_close(ours[1], middle, 1e-5)
    assert_close(ours[2], x, 1e-5)
    np.testing.assert_array_equal(run(module, params), ours[0])
    with pytest.raises(ValueError, match="no head at a middle block"):
        run(*made(), middle=True)


@pytest.mark.parametrize("after", [1, 2])
def test_tokens_are_those_after_so_many_blocks(after):
    module, params = made(depth=2, scan=after == 1)
    x, _, condition = begun(params)
    for i in range(after):
        x = block(reference.layer(params["blocks"]["block"], i), x, condition, 2, GRID)
    assert_close(run(module, params, tokens_after=after)[1], x, 1e-5)


@pytest.mark.parametrize("width", [32, 24])
def test_the_wide_head_is_equation_2(width):
    module, params = made(head_width=width, head_depth=2, head_heads=4 if width == 32 else 2)
    x, time, condition = begun(params)
    x = blocks(params, "blocks", x, reference.silu(condition), 2)
    told = reference.silu(time + x)
    assert ("to_head" in params) == (width != 24)  # as the authors', where both are as wide there is no projection
    told = reference.linear(params["to_head"], told) if width != 24 else told
    h = blocks(params, "head_blocks", reference.linear(params["head_embed"], Z), told, module.head_heads)
    assert_close(run(module, params), end(params, "last", "to_velocity", h, told), 1e-5)


def test_a_patch_is_one_token():
    module, params = made(patch=2, depth=1)
    plain = DiT(**{**SIZES, "grid": (1, 2), "depth": 1})
    tokens = patchify(jnp.asarray(Z, jnp.float32).reshape(3, *GRID, 5), 2)
    want = jax.jit(plain.apply)({"params": params}, tokens, jnp.asarray(T, jnp.float32), jnp.asarray(Y))
    assert_close(run(module, params), unpatchify(want, (1, 2), 2).reshape(3, 8, 5), 1e-6)
    assert module.fixed_values == 2 * 24


def count(channels=32, grid=(16, 16), **fields):
    section = DiTSection(**fields)
    validate(section)
    module = DiT.build(section, grid=grid, condition=ClassLabel(classes=1000), compute=ComputeSection())
    inputs = jnp.zeros((1, grid[0] * grid[1], channels)), jnp.zeros(1), jnp.zeros(1, jnp.int32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)
    return sum(leaf.size for leaf in jax.tree.leaves(shapes)) + module.fixed_values


def test_sizes_have_the_parameters_that_their_authors_state():
    """DiT's table 1 and RAE's, in millions; LightningDiT-XL/1 on FAE's latents exactly."""
    sit = {"channels": 4, "grid": (32, 32), "patch": 2, "norm": "layer", "feed_forward": "gelu_tanh", "rotary": False}
    for size, millions in (("s", 33), ("b", 130), ("l", 458), ("xl", 675)):
        assert abs(count(size=size, **sit) / 1e6 - millions) < 0.6
    assert count(size="xl") == count() == 675_256_736
    wider = 256 * 1152  # their time embedding reads 512 numbers, ours 256
    assert round((count(768, size="xl", head_width=2048) + wider) / 1e6) == 839  # DiT-DH-XL


def test_fields_of_one_s_own_win_over_the_size():
    section = DiTSection(size="b", depth=4, width=512)
    assert (section.width, section.depth, section.heads, section.hidden) == (512, 4, 12, 1365)
    assert dataclasses.replace(section) == section
    with pytest.raises(ValueError, match="heads=12 must divide width=512"):
        validate(section)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"middle": 28}, "middle=28 must be below depth=28"),
        ({"head_width": 100}, "head_heads=16 must divide head_width=100"),
        ({"size": "xxl"}, "size must be one of , s, b, l, xl"),
    ],
)
def test_what_does_not_fit_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        validate(DiTSection(**fields))


def test_patches_must_divide_the_grid():
    with pytest.raises(ValueError, match=r"dit.patch=3 must divide the grid of latents, 16×16"):
        count(patch=3)
