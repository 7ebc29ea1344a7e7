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

from fae_jax.extractors import inception, load_extractor
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


REAL = pytest.mark.skipif("FAE_REAL_DATA" not in os.environ, reason="FAE_REAL_DATA is not set")


@pytest.mark.real_data
@REAL
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


@pytest.mark.slow
@pytest.mark.real_data
@REAL
def test_what_the_elephants_pool_3_can_tell(tmp_path, monkeypatch):
    """No number of pool_3 is exact without the two convolutions that the weights lack: each reads all of mixed_9, of
    which they leave 768 channels of 2,048 open. With zeros there, the branches of mixed_10 that need no others are
    still alike to the true ones, the pooled branch with a maximum (.38) far more than with an average (.15)."""
    root = Path(os.environ["FAE_REAL_DATA"])
    with np.load(root / "weights" / "inception_2015_12_05_partial_fp16.npz") as archive:
        weights = dict(archive)
    for _, name, _, shape in inception.layers():
        weights.setdefault(f"{name}/w", np.zeros(shape, np.float16))
        weights.setdefault(f"{name}/b", np.zeros(shape[-1], np.float32))
    np.savez(tmp_path / "filled.npz", **weights)
    params = load_extractor("inception", str(tmp_path / "filled.npz")).params
    pixels = np.asarray(Image.open(root / "refs" / "elefant.jpg").convert("RGB"), np.float32)[None] * 2 / 255 - 1
    true = np.load(root / "refs" / "elefant_inception_output.npy").reshape(-1)

    def alike():
        pool_3 = jax.jit(lambda params, x: inception.taps(params, x, ("pool_3",)))(params, pixels)["pool_3"][0]
        return [np.corrcoef(pool_3[part], true[part])[0, 1] for part in (slice(0, 320), slice(1856, 2048))]

    conv, pooled = alike()
    assert conv > 0.2 and pooled > 0.35
    monkeypatch.setitem(inception.BLOCKS, "mixed_10", inception._block_8("Mixed_7c", "average"))
    assert alike()[1] < pooled - 0.15
