"""The three figures with their captions, from the scores as the result file has them."""

import numpy as np
from PIL import Image

from fae_jax.evaluation.nearest import CopyCheck, nearest
from fae_jax.evaluation.standard_figures import write_features, write_nearest, write_reconstructions
from fae_jax.stages.figures import ALARM, CAPTION_KEY


def read(path) -> tuple[np.ndarray, str]:
    with Image.open(path) as image:
        return np.asarray(image), image.info[CAPTION_KEY]


def test_nearest_frames_a_planted_copy_and_shows_it_first(tmp_path, digits):
    train, heldout = digits
    samples = heldout.images[:40].copy()
    samples[17] = train.images[5]
    check = CopyCheck(samples=nearest(samples, train.images), heldout=nearest(heldout.images, train.images))
    near = check.as_result()
    assert 17 in near["close"]
    pixels, caption = read(write_nearest(tmp_path, "guided", samples, train.images, near))
    assert caption.startswith("24 of 40 guided samples") and f"{check.limit:.3f}" in caption
    first = pixels[6 : 6 + 64, 6 : 6 + 64, :3][::2, ::2]
    second = pixels[6 : 6 + 64, 6 + 66 : 6 + 130, :3][::2, ::2]
    np.testing.assert_array_equal(first, samples[17])
    np.testing.assert_array_equal(second, train.images[5])
    assert (pixels[2:4, 8:100] == ALARM).all()
    framed = (pixels == ALARM).all(-1)[3].sum()
    assert framed < pixels.shape[1] / 2  # not everything is framed


def test_reconstructions_are_cut_to_count_and_stand_in_rows_of_ten(tmp_path, digits):
    images = digits.heldout.images
    pixels, caption = read(write_reconstructions(tmp_path, images, 255 - images, count=12))
    assert pixels.shape[0] == 4 * 96 + 3 * 4
    left = pixels.shape[1] - 10 * 100 + 4
    np.testing.assert_array_equal(pixels[:96:3, left : left + 96 : 3, :3], images[0])
    np.testing.assert_array_equal(pixels[100:196:3, left : left + 96 : 3, :3], 255 - images[0])
    np.testing.assert_array_equal(pixels[200:296:3, left : left + 96 : 3, :3], images[10])
    assert "Unseen" in caption


def test_features_are_shown_for_the_first_images_only(tmp_path, digits):
    x = np.random.default_rng(0).normal(size=(20, 16, 9))
    pixels, caption = read(write_features(tmp_path, digits.heldout.images[:20], x, x, (4, 4), count=5))
    left = pixels.shape[1] - 5 * 102 + 6
    np.testing.assert_array_equal(pixels[102:198, left:], pixels[204:300, left:])  # x̂ = x: the same colours
    assert len(np.unique(pixels[102:198, left : left + 96].reshape(-1, 4), axis=0)) > 10
    assert "equal colours" in caption
    assert (tmp_path / "evaluation" / "figures" / "features.png").exists()
