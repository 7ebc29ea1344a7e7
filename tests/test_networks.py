"""From a configuration to modules: sizes, counts and refusals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from running import TINY

from fae_jax.config import check, load_config, override
from fae_jax.networks import build_networks, count_parameters, init_params

CONFIG = check(load_config(str(TINY)))


def test_counts_are_those_of_real_parameters():
    networks = build_networks(CONFIG, (4, 4), 16)
    features, latents = jnp.zeros((1, 16, 16)), jnp.zeros((1, 16, 4))
    inputs = {
        "compressor": (features,),
        "feature_decoder": (latents,),
        "pixel_decoder": (features,),
        "dit": (latents, jnp.zeros(1), jnp.zeros(1, jnp.int32)),
    }
    for name, count in count_parameters(networks).items():
        init = functools.partial(init_params, getattr(networks, name))
        params = jax.jit(init)(jax.random.key(0), *inputs[name])
        fixed = 16 * 16 if name == "dit" else 0
        assert count == sum(leaf.size for leaf in jax.tree.leaves(params)) + fixed, name


@pytest.mark.parametrize("scan", [True, False])
def test_parameters_do_not_depend_on_how_blocks_are_compiled(scan: bool):
    deeper = override(CONFIG, [("feature_decoder.transformer.depth", "3"), ("compute.scan", str(scan))])
    networks = build_networks(check(deeper), (4, 4), 16)
    decoder, latents = networks.feature_decoder, jax.random.normal(jax.random.key(1), (2, 16, 4))
    params = jax.jit(functools.partial(init_params, decoder))(jax.random.key(5), latents)
    looped = jax.jit(decoder.clone(scan=True).init)(jax.random.key(5), latents)["params"]
    jax.tree.map(np.testing.assert_array_equal, params, looped)
    ours, theirs = (
        jax.jit(module.apply)({"params": params}, latents) for module in (decoder, decoder.clone(scan=not scan))
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_the_pixel_decoder_paints_the_whole_image_whatever_the_encoders_patch():
    networks = build_networks(CONFIG, (2, 2), 16)
    shape = jax.eval_shape(networks.pixel_decoder.init_with_output, jax.random.key(0), jnp.zeros((3, 4, 16)))[0].shape
    assert shape == (3, 32, 32, 3)


@pytest.mark.parametrize(
    ("grid", "width", "message"),
    [
        ((5, 5), 16, r"data.image_size=32 must be a multiple of the encoder's 5×5 grid"),
        ((4, 2), 16, r"4×2 grid"),
        ((4, 4), 15, r"feature_decoder.transformer.heads=2 must divide the encoder's width 15"),
    ],
)
def test_sizes_that_do_not_divide_are_refused(grid: tuple[int, int], width: int, message: str):
    with pytest.raises(ValueError, match=message):
        build_networks(CONFIG, grid, width)


@pytest.mark.parametrize("switch", ["norm", "feed_forward", "rotary", "qk_norm"])
def test_every_switch_of_the_generator_reaches_it(switch: str):
    values = {"norm": "layer", "feed_forward": "gelu_tanh", "rotary": "False", "qk_norm": "True"}
    config = check(override(CONFIG, [(f"generator.flow_matching.dit.{switch}", values[switch])]))
    changed = build_networks(config, (4, 4), 16)
    assert str(getattr(changed.dit, switch)) == values[switch]
