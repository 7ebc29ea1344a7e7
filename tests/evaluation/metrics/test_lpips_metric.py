"""LPIPS as a metric: blocks of images, each image's distance, and which network it was."""

import jax.numpy as jnp
import numpy as np
import pytest

from fae_jax.evaluation.metrics import Batch
from fae_jax.evaluation.metrics.lpips import BLOCK, Lpips
from fae_jax.extractors.lpips import LPIPS
from fae_jax.extractors.networks import Network
from fae_jax.weights import hash_tree


def test_each_image_is_compared_with_its_original_in_blocks(monkeypatch: pytest.MonkeyPatch):
    params = {"by": np.float32(2)}
    monkeypatch.setattr(Network, "check", lambda self, weights="": None)
    monkeypatch.setattr(Network, "load", lambda self, weights="": params)
    monkeypatch.setattr(
        LPIPS, "distance", lambda self, params, a, b: params["by"] * jnp.mean(jnp.abs(a - b), axis=(1, 2, 3))
    )
    random, metric = np.random.default_rng(0), Lpips("vgg")
    originals, images = random.integers(0, 256, (2, BLOCK + 5, 4, 4, 3), np.uint8)
    labels = np.zeros(len(images), int)
    metric.update(Batch(images=images, labels=labels, originals=originals, look=lambda name: {}))
    expected = 2 * np.abs(originals.astype(float) - images).mean((1, 2, 3)) / 127.5
    np.testing.assert_allclose(metric.each()["lpips"], expected, rtol=1e-5)
    scores = metric.result({})
    assert scores["lpips"] == pytest.approx(expected.mean())
    assert scores["lpips_highest"] == pytest.approx(expected.max())
    assert scores["lpips_network"] == {"name": "lpips_vgg", "weights": hash_tree(params)}


def test_missing_weights_are_refused_when_it_is_made(tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="fae weights pull lpips_alex"):
        Lpips()
