"""Inception against a statement of its own in PyTorch functions: random weights, and the real ones."""

import io
import os
import tarfile
from pathlib import Path

import jax
import numpy as np
import pytest
from inception_weights import tf_weights
from PIL import Image

from fae_jax.extractors import load_extractor
from fae_jax.extractors.inception import TAPS

torch = pytest.importorskip("torch")
from inception_reference import resized, taps  # noqa: E402

pytestmark = pytest.mark.parity


def nearness(ours, theirs):
    """Largest difference, where the largest value of the tap is 1."""
    return {
        name: float(np.abs(np.asarray(ours[name]) - tap).max() / np.abs(tap).max()) for name, tap in theirs.items()
    }


def theirs(weights, images):
    x = torch.from_numpy((resized(images) - 128) / 128).permute(0, 3, 1, 2).float()
    return taps(weights, x)


def test_every_tap_with_random_weights(tmp_path):
    weights = tf_weights()
    np.savez(tmp_path / "random.npz", **weights)
    extractor = load_extractor("inception", str(tmp_path / "random.npz"))
    images = np.random.default_rng(1).integers(0, 256, (1, 40, 61, 3), dtype=np.uint8)
    ours = jax.jit(extractor.apply)(extractor.params, images)
    near = nearness(ours, theirs(weights, images))
    assert near.keys() == ours.keys() == TAPS.keys() and extractor.lacks == {}
    assert max(near.values()) < 1e-4, near


@pytest.mark.real_data
@pytest.mark.skipif("FAE_REAL_DATA" not in os.environ, reason="FAE_REAL_DATA is not set")
def test_the_real_taps_on_photographs():
    root = Path(os.environ["FAE_REAL_DATA"])
    path = root / "weights" / "inception_2015_12_05_partial_fp16.npz"
    with np.load(path) as archive:
        weights = dict(archive)
    with tarfile.open(root / "images" / "imagenette224-val-00000.tar") as archive:
        members = [member for member in archive if member.name.endswith(".jpg")][::750]
        photographs = [
            Image.open(io.BytesIO(archive.extractfile(member).read())).convert("RGB") for member in members
        ]
    images = np.stack([np.asarray(photograph) for photograph in photographs])
    assert images.shape == (2, 224, 224, 3)
    extractor = load_extractor("inception", str(path))
    ours = jax.jit(extractor.apply)(extractor.params, images)
    near = nearness(ours, theirs(weights, images))
    assert near.keys() == ours.keys() == {"64", "192", "spatial", "768"}
    assert max(near.values()) < 1e-4, near
