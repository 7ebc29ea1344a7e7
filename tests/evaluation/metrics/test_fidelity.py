"""PSNR and SSIM against plain loops over pixels and windows."""

import math

import numpy as np
import pytest

from fae_jax.evaluation.metrics import Batch
from fae_jax.evaluation.metrics.fidelity import Fidelity, psnr, ssim, unit_pixels


def scores(originals: np.ndarray, images: np.ndarray) -> Fidelity:
    metric = Fidelity()
    labels = np.zeros(len(images), int)
    metric.update(Batch(images=images, labels=labels, originals=originals, look=lambda name: {}))
    return metric


def make_images(seed: int, count: int = 3, size: tuple[int, int] = (14, 17)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *size, 3), dtype=np.uint8)


def noisy(images: np.ndarray, seed: int, amount: float) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(scale=amount, size=images.shape)
    return np.clip(np.round(images + noise), 0, 255).astype(np.uint8)


def ssim_by_loops(first: np.ndarray, second: np.ndarray) -> float:
    """Wang et al. 2004, window by window, with the window's weighted moments written out."""
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets[:, None] ** 2 + offsets[None, :] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    values = []
    for channel in range(3):
        a, b = first[..., channel] / 255.0, second[..., channel] / 255.0
        for y in range(a.shape[0] - 10):
            for x in range(a.shape[1] - 10):
                p, q = a[y : y + 11, x : x + 11], b[y : y + 11, x : x + 11]
                mp, mq = np.sum(window * p), np.sum(window * q)
                vp, vq = np.sum(window * (p - mp) ** 2), np.sum(window * (q - mq) ** 2)
                vpq = np.sum(window * (p - mp) * (q - mq))
                luminance = (2 * mp * mq + 1e-4) / (mp**2 + mq**2 + 1e-4)
                values.append(luminance * (2 * vpq + 9e-4) / (vp + vq + 9e-4))
    return float(np.mean(values))


def test_psnr_is_that_of_bytes_with_peak_255():
    first = make_images(0)
    second = noisy(first, 1, 12.0)
    for a, b, value in zip(first, second, psnr(first, second), strict=True):
        error = np.mean((a.astype(float) - b.astype(float)) ** 2)
        assert value == pytest.approx(20 * math.log10(255 / math.sqrt(error)), rel=1e-12)


def test_psnr_of_known_errors():
    black = np.zeros((1, 12, 12, 3), np.uint8)
    assert psnr(black, np.full_like(black, 255))[0] == pytest.approx(0.0)
    assert psnr(black, black)[0] == 100.0
    # Floats are in [−1, 1], so a step of 0.2 is a tenth of the range: 20 dB.
    grey = np.zeros((1, 12, 12, 3), np.float32)
    assert psnr(grey, grey + 0.2)[0] == pytest.approx(20.0, abs=1e-4)


def test_floats_beyond_the_range_are_shown_clipped():
    inside, outside = np.ones((1, 12, 12, 3)), np.full((1, 12, 12, 3), 1.7)
    assert psnr(inside, outside)[0] == 100.0
    assert unit_pixels(-outside).max() == 0.0


def test_ssim_is_that_of_plain_loops():
    first = make_images(2)
    second = noisy(first, 3, 40.0)
    expected = [ssim_by_loops(a, b) for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(ssim(first, second), expected, rtol=1e-9)


@pytest.mark.parity
def test_ssim_is_that_of_scikit_image():
    metrics = pytest.importorskip("skimage.metrics")
    first = make_images(2)
    second = noisy(first, 3, 40.0)
    fields = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    expected = [
        metrics.structural_similarity(a, b, data_range=255, channel_axis=-1, **fields)
        for a, b in zip(first, second, strict=True)
    ]
    np.testing.assert_allclose(ssim(first, second), expected, rtol=1e-9)


def test_the_distances_of_each_image_are_kept_through_state_and_merging():
    images = make_images(7, 10)
    whole, parts = scores(images, noisy(images, 8, 25.0)), []
    for part in (slice(0, 4), slice(4, 10)):
        parts.append(Fidelity())
        parts[-1].restore(scores(images[part], noisy(images, 8, 25.0)[part]).state())
    parts[0].merge(parts[1])
    each = parts[0].each()
    assert list(each) == ["psnr", "ssim", "mean_squared_error"] and len(each["psnr"]) == 10
    assert parts[0].result({}) == whole.result({})


def test_ssim_of_a_image_and_itself_and_its_negative():
    images = make_images(4)
    np.testing.assert_allclose(ssim(images, images), 1.0)
    assert ssim(images, 255 - images).max() < 0.0


def test_bytes_and_floats_of_the_same_images_score_alike():
    first, second = make_images(5), noisy(make_images(5), 6, 20.0)
    as_float = [(images / 127.5 - 1.0) for images in (first, second)]
    np.testing.assert_allclose(psnr(*as_float), psnr(first, second), rtol=1e-9)
    np.testing.assert_allclose(ssim(*as_float), ssim(first, second), rtol=1e-9)


def test_scores_are_those_of_single_images():
    first = make_images(7, 10)
    second = noisy(first, 8, 25.0)
    result = scores(first, second).result({})
    assert result["psnr"] == pytest.approx(psnr(first, second).mean())
    assert result["psnr_lowest"] == psnr(first, second).min()
    assert result["ssim"] == pytest.approx(ssim(first, second).mean())
    assert result["ssim_lowest"] == ssim(first, second).min()
    assert result["mean_squared_error"] == pytest.approx(np.mean(((first / 255.0) - (second / 255.0)) ** 2))


def test_what_cannot_be_compared_is_refused(unchecked_shapes):
    with pytest.raises(ValueError, match="cannot be compared"):
        psnr(make_images(0), make_images(0, 2))
    with pytest.raises(ValueError, match="got int64"):
        psnr(make_images(0).astype(np.int64), make_images(0).astype(np.int64))
    with pytest.raises(ValueError, match="at least 11×11"):
        ssim(make_images(0, 1, (8, 20)), make_images(0, 1, (8, 20)))
    with pytest.raises(ValueError, match="no image was reconstructed"):
        Fidelity().result({})
    with pytest.raises(ValueError, match="samples have none"):
        scores(None, make_images(0))
