"""The figure of images and what comes back of them."""

import numpy as np

from fae_jax.evaluation.tasks.reconstruction import reconstructions_figure


def test_the_figure_is_cut_to_count_and_stands_in_rows_of_ten(digits):
    images = digits.heldout.images
    figure, caption = reconstructions_figure(images, 255 - images, count=12)
    pixels = np.asarray(figure)
    assert pixels.shape[0] == 4 * 96 + 3 * 4
    left = pixels.shape[1] - 10 * 100 + 4
    np.testing.assert_array_equal(pixels[:96:3, left : left + 96 : 3, :3], images[0])
    np.testing.assert_array_equal(pixels[100:196:3, left : left + 96 : 3, :3], 255 - images[0])
    np.testing.assert_array_equal(pixels[200:296:3, left : left + 96 : 3, :3], images[10])
    assert "Unseen" in caption
