"""What extractors say of images does not depend on how many come together, and each is read and compiled once."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from fake_fae import FakeFAE, fake_encoder
from running import on_eight_devices

from fae_jax.evaluation import looks
from fae_jax.extractors import Extractor


@pytest.fixture
def opened(monkeypatch):
    """Extractors that mix all values of an image, and what was opened and traced."""
    seen = {"opened": [], "traced": []}
    kernel = np.random.default_rng(1).standard_normal((12 * 12 * 3, 5)).astype(np.float32)

    def load(name):
        seen["opened"].append(name)

        def apply(params, images):
            seen["traced"].append(images.shape)
            flat = images.reshape(len(images), -1).astype(np.float32)
            return {"mixed": jnp.tanh(flat @ params["kernel"] / 1000), "mean": flat.mean(1, keepdims=True)}

        return Extractor(
            name=name,
            variant="mixes",
            weights_hash="abc",
            params={"kernel": kernel},
            apply=apply,
            lacks={"pool": "its weights lack a layer"},
        )

    monkeypatch.setattr(looks, "load_extractor", load)
    return seen


def test_batches_of_any_size_are_told_the_same_by_one_program(opened):
    images = np.random.default_rng(0).integers(0, 256, (70, 12, 12, 3), dtype=np.uint8)
    looked = looks.Looks()
    whole = looked.look("mixer", images)
    assert whole["mixed"].shape == (70, 5) and whole["mixed"].dtype == np.float32
    np.testing.assert_allclose(whole["mean"][:, 0], images.mean((1, 2, 3)), rtol=1e-6)
    for batch in (1, 7, 64):
        parts = [looked.look("mixer", images[start : start + batch]) for start in range(0, 70, batch)]
        for tap, values in whole.items():
            np.testing.assert_array_equal(np.concatenate([part[tap] for part in parts]), values)
    assert opened == {"opened": ["mixer"], "traced": [(looks.BLOCK["cpu"], 12, 12, 3)]}
    assert looked.origin("mixer") == {"name": "mixer", "variant": "mixes", "weights_hash": "abc"}
    with pytest.raises(ValueError, match="the extractor 'mixer' gives no 'pool': its weights lack a layer"):
        whole["pool"]
    with pytest.raises(ValueError, match="the extractor 'mixer' gives no 'cls': it gives mean, mixed"):
        whole["cls"]


def test_the_experiments_own_encoder():
    images = np.random.default_rng(0).integers(0, 256, (5, 2, 2, 3), dtype=np.uint8)
    looked = looks.Looks(FakeFAE(fake_encoder(settings={"resize": "none"})))
    np.testing.assert_allclose(looked.look("encoder", images)["mean"], images.mean((1, 2)) / 127.5 - 1, atol=1e-6)
    variant = "fake, images of 2×2, resize=none"
    assert looked.origin("encoder") == {"name": "encoder", "variant": variant, "weights_hash": "0" * 64}
    with pytest.raises(ValueError, match=r"looks at images of 2×2, got \(8, 4, 4, 3\)"):
        looked.look("encoder", np.zeros((1, 4, 4, 3), np.uint8))
    with pytest.raises(ValueError, match="'encoder' is the encoder of an experiment, and there is none"):
        looks.Looks().look("encoder", images)


@pytest.mark.slow
def test_devices_and_batches_change_nothing():
    seen = on_eight_devices(Path(__file__).parent / "looking.py")
    assert seen["devices"] == 8 and len(seen["apart"]) == 9
    assert max(seen["apart"].values()) == 0, seen["apart"]
