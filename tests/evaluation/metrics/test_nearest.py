"""Nearest images against scipy's distances; a planted copy is seen."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from fae_jax.evaluation import voting
from fae_jax.evaluation.metrics import Batch, take_in
from fae_jax.evaluation.metrics import nearest as nearest_module
from fae_jax.evaluation.metrics.nearest import Nearest, nearest
from fae_jax.evaluation.metrics.rows import priority
from fae_jax.stages.figures import ALARM


def make_images(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 6, 5, 3), dtype=np.uint8)


@pytest.mark.parametrize("block", [7 * 90, 2**25])
def test_nearest_is_the_smallest_of_all_distances(block, monkeypatch):
    monkeypatch.setattr(voting, "BLOCK", block)
    queries, references = make_images(0, 23), make_images(1, 40)
    references[17], references[31] = 127, 120  # grey: near to any noise, but its product with none is large
    near = nearest(queries, references)
    every = cdist(queries.reshape(23, -1) / 255, references.reshape(40, -1) / 255) / np.sqrt(6 * 5 * 3)
    np.testing.assert_array_equal(near.index, every.argmin(1))
    np.testing.assert_allclose(near.distance, every.min(1), rtol=1e-12)
    np.testing.assert_allclose(near.second, np.sort(every, 1)[:, 1], rtol=1e-12)
    np.testing.assert_allclose(near.ratio, every.min(1) / np.sort(every, 1)[:, 1])


def test_distance_runs_from_black_to_white():
    black, white = np.zeros((1, 4, 4, 3), np.uint8), np.full((1, 4, 4, 3), 255, np.uint8)
    near = nearest(black, white)
    assert near.distance[0] == 1.0
    assert near.second[0] == np.inf and near.ratio[0] == 0.0


def test_a_copy_is_at_exactly_zero_and_ratio_tells_a_doubled_reference():
    references = make_images(2, 30)
    near = nearest(references[[4, 9]], references)
    assert near.index.tolist() == [4, 9] and near.distance.tolist() == [0.0, 0.0]
    assert near.ratio.tolist() == [0.0, 0.0]
    doubled = nearest(references[:1], references[[0, 0, 1]])
    assert doubled.index[0] == 0 and doubled.ratio[0] == 1.0


def taken(*batches) -> Nearest:
    return take_in(batches, ["nearest"], None, ())["nearest"]


def compared(digits, images: np.ndarray) -> dict:
    samples = Batch(images=images, labels=np.zeros(len(images), int), look=lambda name: {})
    return taken(samples).result({"train": taken(digits.train), "heldout": taken(digits.heldout)})["nearest"]


def test_planted_copies_of_digits_are_flagged(digits):
    train, heldout = digits
    samples = heldout.images[::2].copy()
    samples[3] = train.images[100]
    samples[8] = np.clip(train.images[200].astype(int) + 1, 0, 255)  # a copy, but for one grey level
    result = compared(digits, samples)
    assert {3, 8} <= set(result["close"]) and result["identical"] == 1
    assert result["index"][3] == 100 and result["index"][8] == 200
    assert result["fraction_close"] == pytest.approx(len(result["close"]) / len(samples))
    assert len(result["close"]) <= 2 + 0.03 * len(samples)
    assert len(result["index"]) == len(result["distances"]) == len(samples)


def test_a_generator_that_copies_stands_out_from_one_that_does_not(digits):
    honest = compared(digits, digits.heldout.images)
    assert honest["fraction_close"] <= 0.02
    assert honest["median_samples"] == honest["median_heldout"]
    copied = compared(digits, digits.train.images[:50])
    assert copied["fraction_close"] == 1.0 and copied["identical"] == 50
    assert copied["median_ratio_samples"] < 0.1 < copied["median_ratio_heldout"]


def test_the_figure_frames_a_planted_copy_and_shows_it_first(digits):
    images = digits.heldout.images[:40].copy()
    images[17] = digits.train.images[5]
    samples = taken(Batch(images=images, labels=np.zeros(40, int), look=lambda name: {}))
    real = {"train": taken(digits.train), "heldout": taken(digits.heldout)}
    ((name, (image, caption)),) = samples.figures(real).items()
    pixels, limit = np.asarray(image), samples.result(real)["nearest"]["limit"]
    assert name == "nearest" and caption.startswith("24 of 40 samples") and f"{limit:.3f}" in caption
    np.testing.assert_array_equal(pixels[6 : 6 + 64, 6 : 6 + 64, :3][::2, ::2], images[17])
    np.testing.assert_array_equal(pixels[6 : 6 + 64, 6 + 66 : 6 + 130, :3][::2, ::2], digits.train.images[5])
    assert (pixels[2:4, 8:100] == ALARM).all()
    framed = (pixels == ALARM).all(-1)[3].sum()
    assert framed < pixels.shape[1] / 2  # not everything is framed


def walked(images: np.ndarray, size: int, **more) -> Nearest:
    """The metric after a stream of `images` that can be walked again."""

    def stream():
        for start in range(0, len(images), size):
            part = images[start : start + size]
            index = np.arange(start, start + len(part))
            yield Batch(images=part, labels=index * 0, index=index, again=stream, look=lambda name: {}, **more)

    return taken(*stream())


@pytest.mark.parametrize("chunk", [1, 6 * 5 * 3 * 9, 2**28])
def test_training_images_pass_by_and_are_not_held(chunk, monkeypatch):
    monkeypatch.setattr(nearest_module, "CHUNK", chunk)
    references, samples, heldout = make_images(10, 61), make_images(11, 12), make_images(12, 9)
    samples[2], samples[5] = references[40], np.clip(references[60].astype(int) + 1, 0, 255)
    references[50] = references[40]
    held = taken(Batch(images=references, labels=np.zeros(61, int), look=lambda name: {}))
    ours = taken(Batch(images=samples, labels=np.zeros(12, int), look=lambda name: {}))
    unseen = taken(Batch(images=heldout, labels=np.zeros(9, int), look=lambda name: {}))
    expected = ours.result({"train": held, "heldout": unseen})["nearest"]
    train = walked(references, 7)
    assert train._parts == []
    real = {"train": train, "heldout": walked(heldout, 4)}
    result = ours.result(real)["nearest"]
    assert result == expected and result["index"][2] == 40 and result["index"][5] == 60
    assert result["compared"] == {"samples": 12, "heldout": 9, "train": 61}
    near = ours.to(train)
    np.testing.assert_array_equal(near.images, references[near.index])
    assert near.second[2] == near.distance[2] == 0.0
    np.testing.assert_array_equal(near.second, nearest(samples, references).second)
    train.restore(train.state())  # as on another host
    again = taken(Batch(images=samples, labels=np.zeros(12, int), look=lambda name: {})).result(real)["nearest"]
    assert again == expected
    assert set(ours.figures(real)) == {"nearest"}


def test_of_many_samples_a_choice_is_compared_and_too_many_training_images_are_refused(monkeypatch, digits):
    monkeypatch.setattr(nearest_module, "HELD", 100 * digits.train.images[0].nbytes)
    samples = digits.heldout.images.copy()
    expected = np.sort(np.argsort(priority(np.arange(359)))[:100])
    samples[expected[7]] = digits.train.images[3]
    batches = [
        Batch(images=samples[part], labels=part * 0, index=part, look=lambda name: {})
        for part in np.split(np.arange(359), [100, 101, 250])
    ]
    real = {"train": walked(digits.train.images, 500), "heldout": walked(digits.heldout.images, 200)}
    ours = taken(*batches)
    result = ours.result(real)["nearest"]
    assert result["compared"] == {"samples": 100, "heldout": 100, "train": 1438}
    assert len(result["index"]) == 100 and result["index"][7] == 3 and expected[7] in result["close"]
    assert "24 of 100 samples" in ours.figures(real)["nearest"][1]
    with pytest.raises(ValueError, match="only 100 of 1438 training images fit into memory, and their stream cannot"):
        ours.result({**real, "train": taken(digits.train)})


def test_impossible_comparisons_are_refused(unchecked_shapes):
    with pytest.raises(ValueError, match="no reference images"):
        nearest(make_images(0, 2), make_images(0, 0))
    with pytest.raises(ValueError, match="no distance"):
        nearest(make_images(0, 2), np.zeros((2, 4, 4, 3), np.uint8))
    with pytest.raises(ValueError, match="no images to look for"):
        Nearest().result({"train": Nearest()})
