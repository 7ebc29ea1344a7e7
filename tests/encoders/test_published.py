import jax
import pytest

from fae_jax.encoders.published import ENCODERS, TEXT_TOWERS
from fae_jax.encoders.recognise import recognise
from fae_jax.encoders.recognise_text import recognise_text


def count(shapes):
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def vision_values(name):
    network = recognise(ENCODERS[name].fields)
    return count(network.shapes()), network.config


def text_values(name):
    return count(recognise_text(TEXT_TOWERS[name].fields).shapes())


@pytest.mark.parametrize(
    ("name", "published"),
    [
        # safetensors headers of the hub; the mask token (one vector) is counted there and not read here
        ("dinov2_s14", 22_056_576),
        ("dinov2_b14", 86_580_480),
        ("dinov2_l14", 304_368_640),
        ("dinov2_g14", 1_136_480_768),
        ("dinov2_g14_reg", 1_136_480_768 + 4 * 1536),
    ],
)
def test_dinov2_sizes(name, published):
    values, config = vision_values(name)
    assert values == published - config.width


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("dinov3_s16", 21.6), ("dinov3_s16plus", 28.7), ("dinov3_b16", 85.7), ("dinov3_l16", 303.1),
        ("dinov3_h16plus", 840.5), ("dinov3_7b16", 6716), ("mae_b16", 85.8), ("mae_l16", 303.3),
    ],
)  # fmt: skip
def test_sizes_as_their_papers_round_them(name, millions):
    assert vision_values(name)[0] / 1e6 == pytest.approx(millions, rel=2e-3)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("clip_b32", 151_277_313),
        ("clip_b16", 149_620_737),
        ("clip_l14", 427_616_513),
        ("siglip_b16_224", 203_155_970),
    ],
)
def test_both_towers_together(name, published):
    temperature = 1 if name.startswith("clip") else 2  # logit scale, and SigLIP's bias
    assert vision_values(name)[0] + text_values(name) + temperature == published


def test_names_and_repositories_are_told_apart():
    repositories = [entry.repository for entry in {**ENCODERS, **TEXT_TOWERS}.values()]
    assert len(set(repositories)) == len(repositories) >= 40
    assert {"dinov2_g14", "dinov2_b14_reg", "siglip2_g16_256", "siglip2_g16_384", "clip_bigg14"} <= set(ENCODERS)


def test_two_towers_agree_on_the_width_they_meet_in():
    for name, entry in ENCODERS.items():
        if name in TEXT_TOWERS:
            vision, text = recognise(entry.fields).config, recognise_text(entry.fields).config
            assert (vision.projection or vision.width) == text.projection, name


def test_every_entry_prepares_images_its_network_takes():
    for name, entry in ENCODERS.items():
        config = recognise(entry.fields).config
        side = entry.preprocessing.crop or entry.preprocessing.square
        assert side // config.patch >= 7, name
