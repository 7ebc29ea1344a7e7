"""The registry's own refusals."""

import pytest

from fae_jax.encoders import registry


def test_an_option_that_an_encoder_does_not_have_is_refused_and_one_it_has_arrives(monkeypatch):
    monkeypatch.setattr(registry, "_builders", dict(registry._builders))
    seen = {}

    def narrow(*, weights, image_size, resize="bicubic"):
        seen.update(resize=resize)
        raise FileNotFoundError("no weights here")

    registry.register("narrow", narrow)
    with pytest.raises(
        ValueError, match="encoder 'narrow' has no option 'layers'; leave encoder.layers at its default"
    ):
        registry.create("narrow", weights=None, image_size=32, layers=(1,))
    with pytest.raises(FileNotFoundError):
        registry.create("narrow", weights=None, image_size=32, resize="bicubic_antialias")
    assert seen == {"resize": "bicubic_antialias"}
