"""The judge on real digits; its low-resolution view against PIL and against the original 8×8 values."""

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from fae_jax.evaluation.judge import area_matrix, low_resolution, train_judge


def test_judge_recognises_heldout_real_digits(digits):
    train, heldout = digits
    judge = train_judge(train.images, train.labels, heldout.images, heldout.labels)
    assert judge.heldout_accuracy >= 0.98
    assert judge.trusted
    assert np.mean(judge.recognise(heldout.images) == heldout.labels) == judge.heldout_accuracy
    result = judge.as_result()
    assert result["trained_on"] == 1438 and result["heldout"] == 359
    assert "64 inputs" in result["kind"]


def test_judge_that_learnt_nothing_is_not_trusted(digits):
    train, heldout = digits
    shuffled = np.random.default_rng(0).permutation(train.labels)
    judge = train_judge(train.images, shuffled, heldout.images, heldout.labels)
    assert judge.heldout_accuracy < 0.5
    assert not judge.trusted and judge.as_result()["trusted"] is False


def test_judge_sees_only_what_its_input_shows(digits):
    train, heldout = digits
    blind = train_judge(
        train.images,
        train.labels,
        heldout.images,
        heldout.labels,
        judge_input=lambda images: np.zeros((len(images), 2)),
        gamma="scale",
    )
    assert blind.heldout_accuracy < 0.2
    assert len(np.unique(blind.recognise(heldout.images))) == 1


def test_low_resolution_returns_the_original_digits_from_plain_enlargement():
    original = load_digits().images[:20]
    grey = np.round(original * 255 / 16).astype(np.uint8)
    shown = np.repeat(np.kron(grey, np.ones((4, 4), np.uint8))[..., None], 3, axis=-1)
    np.testing.assert_allclose(low_resolution(shown), original.reshape(20, 64), atol=16 / 255)


@pytest.mark.parametrize("shape", [(32, 32), (30, 44)])
def test_low_resolution_is_pils_box_resize(shape):
    image = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    seen = low_resolution(image[None], size=8, colour=True).reshape(8, 8, 3) * 255 / 16
    expected = np.asarray(Image.fromarray(image).resize((8, 8), Image.Resampling.BOX), np.float64)
    exact = shape[0] % 8 == 0 and shape[1] % 8 == 0
    # PIL rounds to bytes after each pass, and counts a pixel as in or out instead of splitting it.
    assert np.abs(seen - expected).max() <= (1.01 if exact else 60)
    assert low_resolution(image[None]).shape == (1, 64)


def test_area_matrix_splits_pixels_and_keeps_the_mean():
    np.testing.assert_allclose(area_matrix(3, 2), [[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]])
    weights = area_matrix(50, 8)
    np.testing.assert_allclose(weights.sum(1), 1.0)
    np.testing.assert_allclose(weights.sum(0), 8 / 50)


def test_judge_needs_classes_and_an_examination(digits):
    train, heldout = digits
    with pytest.raises(ValueError, match="at least 2 classes"):
        train_judge(train.images[:3], np.zeros(3, np.int64), heldout.images, heldout.labels)
    with pytest.raises(ValueError, match="held-out images"):
        train_judge(train.images, train.labels, heldout.images[:0], heldout.labels[:0])
