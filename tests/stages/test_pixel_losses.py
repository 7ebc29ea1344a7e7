"""What `pixels.losses` and presets mean, and what is refused before anything is computed."""

import re

import jax
import pytest
from running import TINY

from fae_jax.compiler.programs import lower
from fae_jax.config import check, load_config, override
from fae_jax.losses.pixel import opponents
from fae_jax.parallel.mesh import make_mesh
from fae_jax.stages import pixels
from fae_jax.stages.pixels import networks, noise_level, terms_of
from fae_jax.tokenizers.fae import FAETokenizer

CONFIG = load_config(str(TINY))


def changed(*fields: tuple[str, str]):
    return check(override(CONFIG, fields))


def test_titok_is_its_terms_with_l2_on_a_range_of_1():
    config = changed(
        ("pixels.preset", "titok"), ("pixel_losses.gan.network", "dino"), ("pixel_losses.gan.start", "5")
    )
    terms = terms_of("pixels", config)
    assert [(each.name, each.weight, each.start) for each in terms] == [
        ("l2", 0.25, 0),
        ("lpips", 1.0, 0),
        ("convnext", 0.1, 0),
        ("gan", 0.1, 0),
    ]
    gan = terms[3].term.section
    assert (gan.network, gan.loss, gan.adaptive, gan.lecam, gan.start) == ("patch", "hinge", False, 1e-3, 0)
    assert [*networks("pixels", config)] == ["lpips_vgg", "convnext_s"]
    assert terms_of("finetune", config)[0].name == "l2" and networks("finetune", config) == {}


def test_rae_is_its_terms_with_starts_by_shares_of_the_steps():
    config = changed(("finetune.preset", "rae"), ("finetune.steps", "1600"))
    terms = terms_of("finetune", config)
    assert [(each.name, each.weight, each.start) for each in terms] == [
        ("l1", 0.5, 0),
        ("lpips", 1.0, 0),
        ("gan", 0.75, 800),
    ]
    gan = terms[2].term.section
    assert (gan.network, gan.loss, gan.adaptive, gan.augment, gan.rounded) == ("dino", "hinge", True, True, True)
    assert opponents(terms)["gan"][1] == 600 and [*networks("finetune", config)] == ["lpips_vgg", "dino_s8"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ([("pixels.losses", '(("l1", 1.0), ("gan", 0.1, 8))')], "'gan' begins at step 8, and there are steps=8"),
        ([("pixels.losses", '(("l1", 1.0), ("l1", 0.1))')], "field pixels.losses holds each term once"),
        ([("pixels.losses", '(("ssim", 1.0),)')], "terms l1, l2, lpips, convnext, gan"),
        ([("pixels.preset", "vqgan")], "field pixels.preset must be one of , titok, rae, got 'vqgan'"),
        ([("pixels.preset", "rae"), ("pixels.losses", '(("l1", 1.0),)')], "are given beside preset='rae'; leave one"),
        ([("pixels.noise", "-0.1")], "field pixels.noise must be at least 0, got -0.1"),
        ([("pixel_losses.gan.channels", "48")], "field pixel_losses.gan.channels=48 must be a multiple of 32"),
        ([("pixel_losses.gan.size", "4")], "field pixel_losses.gan.size must be an odd number, got 4"),
    ],
)
def test_what_cannot_be_is_refused(fields, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        changed(*fields)


def test_a_discriminator_that_begins_after_the_end_and_missing_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    late = changed(("pixels.losses", '(("gan", 1.0),)'), ("pixel_losses.gan.start", "8"))
    with pytest.raises(
        ValueError, match="field pixel_losses.gan.start=8 is beyond the end of stage pixels, pixels.st"
    ):
        pixels.check("pixels", late)
    with pytest.raises(FileNotFoundError) as caught:
        pixels.check("pixels", changed(("pixels.preset", "titok")))
    for part in (
        "fae weights pull lpips_vgg",
        "fae weights pull convnext_s",
        'pixels.losses=(("l1", 1.0),)',
        "no pixels.preset",
    ):
        assert part in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["titok", "rae"])
def test_a_stage_with_a_preset_compiles_without_any_weights(preset: str):
    fields = [("pixels.preset", preset), ("pixels.steps", "16"), ("pixel_losses.gan.channels", "32")]
    program = lower(override(CONFIG, fields), "pixels", make_mesh())
    assert {type(leaf) for leaf in jax.tree.leaves(program.state[1])} == {jax.ShapeDtypeStruct}
    text = program.lowered.as_text()
    assert "tensor<3x3x512x512xf32>" in text and ("conditional" in text or "stablehlo.case" in text) == (
        preset == "rae"
    )


def test_relative_noise_is_that_of_the_reference_scaled_by_the_norm():
    tokenizer = FAETokenizer.outline(changed(("encoder.feature_norm", "none")))
    config = changed(("pixels.noise_relative", "True"), ("pixels.noise_reference", "2.0"))
    assert noise_level(tokenizer, config.pixels) == pytest.approx(0.4 * 2**0.5 / 2)  # outlines have mean and std 1
    assert noise_level(tokenizer, changed().pixels) == 0.4


@pytest.mark.parametrize(("image", "grid"), [(256, 16), (384, 24), (512, 32)])
def test_decoders_paint_patches_of_16_from_grids_of_three_sizes(image: int, grid: int):
    """From an encoder of patches of 16, as SigLIP2's."""
    config = changed(("data.image_size", str(image)), ("encoder.patch", "16"))
    tokenizer = FAETokenizer.outline(config)
    assert tokenizer.grid == (grid, grid) and tokenizer.pixel_decoder.patch == 16
    features = jax.ShapeDtypeStruct((1, grid * grid, tokenizer.width), "float32")
    made, _ = jax.eval_shape(tokenizer.pixel_decoder.init_with_output, jax.random.key(0), features)
    assert made.shape == (1, image, image, 3)
