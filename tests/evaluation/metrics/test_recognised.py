"""The judge on real digits; its low-resolution view against PIL and against the original 8×8 values."""

import dataclasses

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from fae_jax.evaluation.metrics import take_in
from fae_jax.evaluation.metrics.recognised import Recognised, area_matrix, low_resolution

NAMES = [str(digit) for digit in range(10)]


def taken(*batches, names=NAMES) -> Recognised:
    return take_in(batches, ["recognised"], None, names)["recognised"]


def judged(digits, samples) -> dict:
    return taken(samples).result({"train": taken(digits.train), "heldout": taken(digits.heldout)})


def some(batch, which, **changes):
    return dataclasses.replace(batch, images=batch.images[which], labels=batch.labels[which], **changes)


def test_perfect_samples_score_as_the_heldout_images_they_are(digits):
    result = judged(digits, digits.heldout)
    judge = result["judge"]
    assert result["accuracy"] == judge["heldout_accuracy"] >= 0.98 and judge["trusted"] is True
    assert judge["trained_on"] == 1438 and judge["heldout"] == 359 and "64 inputs" in judge["kind"]
    assert sum(result["count_per_class"].values()) == 359


def test_a_judge_that_learnt_nothing_is_not_trusted(digits):
    shuffled = dataclasses.replace(digits.train, labels=np.random.default_rng(0).permutation(digits.train.labels))
    judge = judged(digits._replace(train=shuffled), digits.heldout)["judge"]
    assert judge["heldout_accuracy"] < 0.5 and judge["trusted"] is False


def test_accuracy_is_of_the_class_asked_for(digits):
    """Samples asked to be a 4 that show something else are wrong, and only the 4 suffers."""
    heldout = digits.heldout
    images = heldout.images.copy()
    fours, zeros = np.flatnonzero(heldout.labels == 4), np.flatnonzero(heldout.labels == 0)
    images[fours] = images[zeros[0]]
    result = judged(digits, dataclasses.replace(heldout, images=images))
    assert result["accuracy_per_class"]["4"] == 0.0
    assert result["lowest_class"] == {"name": "4", "accuracy": 0.0}
    assert result["accuracy_per_class"]["0"] >= 0.9
    whole = judged(digits, heldout)
    lost = whole["accuracy_per_class"]["4"] * len(fours) / len(images)
    assert result["accuracy"] == pytest.approx(whole["accuracy"] - lost)


def test_a_class_nobody_asked_for_has_no_accuracy(digits):
    result = judged(digits, some(digits.heldout, digits.heldout.labels < 3))
    assert result["accuracy_per_class"]["7"] is None and result["count_per_class"]["7"] == 0
    assert result["lowest_class"]["name"] in {"0", "1", "2"}


def test_low_resolution_returns_the_original_digits_from_plain_enlargement():
    original = load_digits().images[:20]
    grey = np.round(original * 255 / 16).astype(np.uint8)
    enlarged = np.repeat(np.kron(grey, np.ones((4, 4), np.uint8))[..., None], 3, axis=-1)
    np.testing.assert_allclose(low_resolution(enlarged), original.reshape(20, 64), atol=16 / 255)


@pytest.mark.parametrize("shape", [(32, 32), (30, 44)])
def test_low_resolution_is_pils_box_resize(shape):
    image = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    channels = np.moveaxis(image, -1, 0)[..., None].repeat(3, -1)  # each as a grey image
    seen = low_resolution(channels).reshape(3, 8, 8).transpose(1, 2, 0) * 255 / 16
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


def test_what_cannot_be_judged_is_refused(digits):
    train, heldout = digits
    one = some(train, train.labels == 3)
    with pytest.raises(ValueError, match="at least 2 classes to train on, got 1"):
        judged(digits._replace(train=one), heldout)
    with pytest.raises(ValueError, match="hold some out of training"):
        taken(heldout).result({"train": taken(train), "heldout": taken()})
    with pytest.raises(ValueError, match="labels run from 0 to 9, but there are 9 class names"):
        taken(heldout, names=NAMES[:9])
