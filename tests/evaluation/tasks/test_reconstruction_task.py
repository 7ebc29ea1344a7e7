"""The figure of images and what comes back of them."""

import numpy as np

from fae_jax.evaluation.tasks.reconstruction import reconstructions_figure
from fae_jax.evaluation.views import Examples


def test_the_figure_is_cut_to_count_and_stands_in_rows_of_ten(digits):
    images = digits.heldout.images
    examples = Examples(12, len(images))
    for part in np.split(np.arange(len(images)), range(50, len(images), 50)):
        examples.add(images[part], 255 - images[part], part)
    images, negatives, places = examples.arrays()
    assert len(images) == 12 and (abs(np.diff(places) - 359 / 12) < 1).all()  # of all classes, where they are sorted
    figure, caption = reconstructions_figure(images, negatives)
    pixels = np.asarray(figure)
    assert pixels.shape[0] == 4 * 96 + 3 * 4
    left = pixels.shape[1] - 10 * 100 + 4
    np.testing.assert_array_equal(pixels[:96:3, left : left + 96 : 3, :3], images[0])
    np.testing.assert_array_equal(pixels[100:196:3, left : left + 96 : 3, :3], 255 - images[0])
    np.testing.assert_array_equal(pixels[200:296:3, left : left + 96 : 3, :3], images[10])
    assert "Unseen" in caption
