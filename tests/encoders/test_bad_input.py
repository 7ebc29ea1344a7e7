"""What people point an encoder at by mistake: one ValueError that says what is wrong, whatever the reader met."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from published_files import SIGLIP, arrays, write

from fae_jax.encoders import create, create_text, registry
from fae_jax.encoders.registry import Encoder, EncoderOutput


def refused(weights, message, name="pretrained"):
    with pytest.raises(ValueError, match=message) as caught:
        create(name, weights=weights, image_size=64)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", [], "config.json contains a list instead of fields"),
        ("config.json", {}, "describes a None"),
        ("config.json", {**SIGLIP, "patch_size": 0}, "cannot be built from .*damaged or another network"),
        ("config.json", {**SIGLIP, "hidden_size": "32"}, "cannot be built from .*damaged or another network"),
        ("preprocessor_config.json", {"image_mean": [0.5]}, "three numbers each|damaged or another network"),
        ("preprocessor_config.json", {"image_std": [0.2, 0.0, 0.2]}, "std above 0"),
        ("preprocessor_config.json", {"size": None}, "cannot be built from .*damaged or another network"),
    ],
)
def test_fields_that_make_no_sense(tmp_path, file, content, message):
    weights = write(tmp_path, SIGLIP)
    (tmp_path / file).write_text(json.dumps(content))
    refused(weights, message)


def test_quantised_weights(tmp_path):
    whole = {name: np.ones(value.shape, np.int8) for name, value in arrays(SIGLIP).items()}
    refused(write(tmp_path, SIGLIP, whole), r"has dtype int8; quantised weights cannot be read")


@pytest.fixture
def stranger(monkeypatch):
    """A third party's builder, whatever it does."""
    monkeypatch.setattr(registry, "_builders", dict(registry._builders))
    monkeypatch.setattr(registry, "_text_builders", dict(registry._text_builders))

    def make(apply, grid=(2, 2)):
        def build(*, weights, image_size, **_):
            return Encoder(
                name="stranger",
                apply=apply,
                params={"scale": jnp.ones(3)},
                preprocess=lambda images: images,
                grid=grid,
                width=3,
                weights_hash="",
            )

        registry.register("stranger", build)

    return make


def test_a_strangers_encoder_is_tried_before_it_is_used(stranger):
    stranger(lambda params, pixels: EncoderOutput(params["scale"] * pixels[:, :2, :2].reshape(-1, 4, 3)))
    assert create("stranger", weights=None, image_size=64).grid == (2, 2)
    stranger(lambda params, pixels: EncoderOutput(params["missing"] * pixels[:, :2, :2].reshape(-1, 4, 3)))
    refused(
        "w.npz",
        r"'stranger' cannot be built from w.npz: they are damaged or another network.s \(KeyError 'missing'\)",
        "stranger",
    )
    stranger(lambda params, pixels: EncoderOutput(pixels[:, :2, :2].reshape(-1, 4, 3)), grid=(3, 2))
    refused(None, r"promises features \(1, 6, 3\) but returns \(1, 4, 3\)", "stranger")

    def broken(**_):
        raise KeyError("text_model")

    registry.register_text("stranger", broken)
    with pytest.raises(ValueError, match=r"text tower 'stranger' cannot be built from .*KeyError 'text_model'"):
        create_text("stranger", weights="w.npz")
