"""Nearest images against scipy's distances; a planted copy is seen."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from fae_jax.evaluation import voting
from fae_jax.evaluation.nearest import CopyCheck, nearest


def make_images(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 6, 5, 3), dtype=np.uint8)


@pytest.mark.parametrize("block", [7 * 90, 2**25])
def test_nearest_is_the_smallest_of_all_distances(block, monkeypatch):
    monkeypatch.setattr(voting, "BLOCK", block)
    queries, references = make_images(0, 23), make_images(1, 40)
    references[17], references[31] = 127, 120  # grey: near to any noise, but its product with none is large
    found = nearest(queries, references)
    every = cdist(queries.reshape(23, -1) / 255, references.reshape(40, -1) / 255) / np.sqrt(6 * 5 * 3)
    np.testing.assert_array_equal(found.index, every.argmin(1))
    np.testing.assert_allclose(found.distance, every.min(1), rtol=1e-12)
    np.testing.assert_allclose(found.second, np.sort(every, 1)[:, 1], rtol=1e-12)
    np.testing.assert_allclose(found.ratio, every.min(1) / np.sort(every, 1)[:, 1])


def test_distance_runs_from_black_to_white():
    black, white = np.zeros((1, 4, 4, 3), np.uint8), np.full((1, 4, 4, 3), 255, np.uint8)
    found = nearest(black, white)
    assert found.distance[0] == 1.0
    assert found.second[0] == np.inf and found.ratio[0] == 0.0


def test_a_copy_is_at_exactly_zero_and_ratio_tells_a_doubled_reference():
    references = make_images(2, 30)
    found = nearest(references[[4, 9]], references)
    assert found.index.tolist() == [4, 9] and found.distance.tolist() == [0.0, 0.0]
    assert found.ratio.tolist() == [0.0, 0.0]
    doubled = nearest(references[:1], references[[0, 0, 1]])
    assert doubled.index[0] == 0 and doubled.ratio[0] == 1.0


def test_planted_copies_of_digits_are_flagged(digits):
    train, heldout = digits
    honest = heldout.images[::2]
    samples = honest.copy()
    samples[3] = train.images[100]
    samples[8] = np.clip(train.images[200].astype(int) + 1, 0, 255)  # a copy, but for one grey level
    check = CopyCheck(samples=nearest(samples, train.images), heldout=nearest(heldout.images, train.images))
    assert check.close[3] and check.close[8]
    assert check.samples.index[3] == 100 and check.samples.index[8] == 200
    result = check.as_result()
    assert {3, 8} <= set(result["close"]) and result["identical"] == 1
    assert result["fraction_close"] == pytest.approx(len(result["close"]) / len(samples))
    assert len(result["close"]) <= 2 + 0.03 * len(samples)
    assert len(result["index"]) == len(result["distances"]) == len(samples)


def test_a_generator_that_copies_stands_out_from_one_that_does_not(digits):
    train, heldout = digits
    reference = nearest(heldout.images, train.images)
    honest = CopyCheck(samples=reference, heldout=reference).as_result()
    assert honest["fraction_close"] <= 0.02
    assert honest["median_samples"] == honest["median_heldout"]
    copied = CopyCheck(samples=nearest(train.images[:50], train.images), heldout=reference).as_result()
    assert copied["fraction_close"] == 1.0 and copied["identical"] == 50
    assert copied["median_ratio_samples"] < 0.1 < copied["median_ratio_heldout"]


def test_impossible_comparisons_are_refused(unchecked_shapes):
    with pytest.raises(ValueError, match="no reference images"):
        nearest(make_images(0, 2), make_images(0, 0))
    with pytest.raises(ValueError, match="no distance"):
        nearest(make_images(0, 2), np.zeros((2, 4, 4, 3), np.uint8))
