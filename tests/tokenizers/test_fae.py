"""From a configuration to modules: sizes, parameters, refusals, and what a latent's identity is made of."""

import dataclasses
import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from running import TINY

from fae_jax.conditions import make_condition
from fae_jax.config import check, load_config, override
from fae_jax.generators import make_generator
from fae_jax.nn.params import count, init_params
from fae_jax.tokenizers.fae import Facts, FAETokenizer

CONFIG = check(load_config(str(TINY)))


def built(config=CONFIG, grid: tuple[int, int] = (4, 4), width: int = 16) -> FAETokenizer:
    ones = (1.0,) * width
    facts = Facts(encoder="vit", weights="", settings={}, grid=grid, width=width, tokens=1, mean=ones, std=ones)
    return FAETokenizer.build(config, facts)


@pytest.mark.parametrize("part", ["compressor", "feature_decoder", "pixel_decoder"])
def test_shapes_are_those_of_real_parameters(part: str):
    params = jax.jit(functools.partial(built().init, part))(jax.random.key(0))
    assert count(params) == sum(leaf.size for leaf in jax.tree.leaves(params)) == count(built().shapes(part))


@pytest.mark.parametrize("scan", [True, False])
def test_parameters_do_not_depend_on_how_blocks_are_compiled(scan: bool):
    fields = [("feature_decoder.transformer.depth", "3"), ("compute.scan", str(scan))]
    decoder = built(check(override(load_config(str(TINY)), fields))).feature_decoder
    latents = jax.random.normal(jax.random.key(1), (2, 16, 4))
    params = jax.jit(functools.partial(init_params, decoder))(jax.random.key(5), latents)
    looped = jax.jit(decoder.clone(scan=True).init)(jax.random.key(5), latents)["params"]
    jax.tree.map(np.testing.assert_array_equal, params, looped)
    ours, theirs = (
        jax.jit(module.apply)({"params": params}, latents) for module in (decoder, decoder.clone(scan=not scan))
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_the_pixel_decoder_paints_the_whole_image_whatever_the_encoders_patch():
    decoder = built(grid=(2, 2)).pixel_decoder
    shape = jax.eval_shape(decoder.init_with_output, jax.random.key(0), jnp.zeros((3, 4, 16)))[0].shape
    assert shape == (3, 32, 32, 3)


@pytest.mark.parametrize(
    ("grid", "width", "message"),
    [
        ((5, 5), 16, r"data.image_size=32 must be a multiple of the encoder's 5×5 grid"),
        ((4, 2), 16, r"4×2 grid"),
        ((4, 4), 15, r"feature_decoder.transformer.heads=2 must divide the encoder's width 15|heads=2 must divide"),
    ],
)
def test_sizes_that_do_not_divide_are_refused(grid: tuple[int, int], width: int, message: str):
    with pytest.raises(ValueError, match=message):
        built(grid=grid, width=width)


def test_an_encoder_that_computes_otherwise_than_before_is_refused():
    facts = dataclasses.replace(built().facts, settings={"interpolation": "bicubic", "source": "here"})
    settings = {"interpolation": "bicubic_offset", "source": "there"}
    opened = SimpleNamespace(name="vit", weights_hash="", settings=settings)
    with pytest.raises(
        ValueError, match="interpolation='bicubic_offset', and this experiment was made with 'bicubic'"
    ):
        FAETokenizer(CONFIG, facts, lambda: opened).encoder  # noqa: B018


@pytest.mark.parametrize("switch", ["norm", "feed_forward", "rotary", "qk_norm"])
def test_every_switch_of_the_generator_reaches_it(switch: str):
    values = {"norm": "layer", "feed_forward": "gelu_tanh", "rotary": "False", "qk_norm": "True"}
    fields = [(f"generator.flow_matching.dit.{switch}", values[switch])]
    config = check(override(load_config(str(TINY)), fields))
    made = make_generator(config, grid=(4, 4), channels=4, condition=make_condition(config))
    assert str(getattr(made.network, switch)) == values[switch]


def test_an_identity_changes_with_weights_structure_and_statistics():
    tokenizer = built()
    params = {"compressor": tokenizer.init("compressor", jax.random.key(0))}
    first = tokenizer.identity(params)["compressor"]
    other = {"compressor": jax.tree.map(lambda leaf: leaf + 1e-3, params["compressor"])}
    shifted = FAETokenizer.build(CONFIG, dataclasses.replace(tokenizer.facts, mean=(1.1,) * 16))
    names = {first, tokenizer.identity(other)["compressor"], shifted.identity(params)["compressor"]}
    assert len(names) == 3 and built().identity(params)["compressor"] == first
