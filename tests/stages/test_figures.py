"""Figures by their pixels: what stands where, one projection for x and x̂, captions inside the file."""

import numpy as np
import pytest
from PIL import Image

from fae_jax.stages.figures import (
    ALARM,
    CAPTION_KEY,
    cell_size,
    class_grid,
    feature_maps,
    least_and_most,
    nearest_pairs,
    reconstruction_pairs,
    write_figure,
)
from fae_jax.tokenizers.feature_space import feature_colours


def plain(*greys: int, size: int = 8) -> np.ndarray:
    """One image of a single grey per argument."""
    return np.stack([np.full((size, size, 3), grey, np.uint8) for grey in greys])


def greys_along(figure: Image.Image, y: int) -> list[int]:
    """The greys of opaque cells met on a line of pixels, each once, in order."""
    row = np.asarray(figure)[y]
    shown = [int(pixel[0]) for pixel in row if pixel[3] == 255 and pixel[0] == pixel[1] == pixel[2]]
    return [grey for i, grey in enumerate(shown) if i == 0 or shown[i - 1] != grey]


def test_small_images_are_enlarged_by_a_whole_factor_and_large_ones_reduced():
    assert cell_size(32, 32, 100) == (96, 96)
    assert cell_size(8, 16, 64) == (32, 64)
    assert cell_size(256, 128, 64) == (64, 32)
    assert cell_size(64, 64, 64) == (64, 64)


def test_class_grid_has_a_row_for_each_class_in_order():
    images, labels = plain(10, 20, 30, 40, 50), np.array([2, 0, 2, 0, 2])
    figure = class_grid(images, labels, ["cat", "dog", "eel"], cell=32)
    rows = [greys_along(figure, y) for y in (16, 52)]
    assert rows == [[20, 40], [10, 30, 50]]
    assert figure.height == 2 * 32 + 4


def test_class_grid_shows_no_more_than_it_was_asked_to():
    images, labels = np.repeat(plain(*range(0, 200, 10)), 3, axis=0), np.repeat(np.arange(20), 3)
    figure = class_grid(images, labels, [""] * 20, columns=2, rows=5, cell=8)
    assert figure.size == (2 * 8 + 4, 5 * 8 + 4 * 4)
    with pytest.raises(ValueError, match="at least one image"):
        class_grid(images[:0], labels[:0], [""] * 20)


def test_lettering_has_room_and_the_ground_is_transparent():
    figure = class_grid(plain(10), np.array([0]), ["a long name of a class"], cell=64)
    pixels = np.asarray(figure)
    left = figure.width - 64
    assert left > 100
    assert (pixels[:, :left, 3] > 0).any() and (pixels[:8, :left, 3] == 0).all()
    assert (pixels[:, left:, :3] == 10).all() and (pixels[:, left:, 3] == 255).all()


def test_reconstructions_stand_right_under_their_originals():
    figure = reconstruction_pairs(plain(10, 20, 30), plain(110, 120, 130), columns=2, cell=8)
    right = figure.crop((figure.width - 20, 0, figure.width, figure.height))
    assert [greys_along(right, 4 + 12 * row) for row in range(4)] == [[10, 20], [110, 120], [30], [130]]


def test_equal_features_have_equal_colours_and_lost_ones_do_not():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 16, 10))
    changed = x.copy()
    changed[1, 5] += 4.0
    before, after = feature_colours(x, changed, (4, 4))
    assert before.shape == (3, 4, 4, 3)
    differs = (before != after).any(-1)
    assert differs[1, 1, 1] and differs.sum() == 1
    np.testing.assert_array_equal(*feature_colours(x, x, (4, 4)))


def test_colours_are_the_three_directions_of_greatest_variance():
    """Against scikit-learn's PCA, up to the sign of each direction."""
    from sklearn.decomposition import PCA

    rng = np.random.default_rng(1)
    x = rng.normal(size=(20, 16, 6)) * [9.0, 5.0, 2.0, 0.1, 0.1, 0.1] + 3.0
    colours, _ = feature_colours(x, x, (4, 4))
    projected = PCA(3).fit_transform(x.reshape(-1, 6))
    for channel in range(3):
        inside = (colours[..., channel].ravel() > 0) & (colours[..., channel].ravel() < 255)
        correlation = np.corrcoef(colours[..., channel].ravel()[inside], projected[inside, channel])[0, 1]
        assert abs(correlation) > 0.999
        assert 0.9 < inside.mean() < 0.97  # two percent are clipped at either end


def test_colours_do_not_depend_on_the_sign_that_the_decomposition_happens_to_choose():
    x = np.random.default_rng(2).normal(size=(4, 4, 5)) * [5, 4, 3, 1, 1]
    first, _ = feature_colours(x, x, (2, 2))
    shifted, _ = feature_colours(x + 7.0, x, (2, 2))
    np.testing.assert_allclose(first.astype(int), shifted.astype(int), atol=1)


def test_feature_maps_have_three_rows():
    x = np.random.default_rng(3).normal(size=(2, 4, 8))
    figure = feature_maps(plain(40, 50), x, x, (2, 2), cell=16)
    assert figure.height == 3 * 16 + 2 * 6
    assert greys_along(figure, 8) == [40, 50]
    with pytest.raises(ValueError, match="do not fill a grid"):
        feature_maps(plain(40, 50), x, x, (2, 3))


def test_samples_stand_left_of_their_nearest_training_image_and_close_ones_are_framed():
    samples, train = plain(10, 20, 30), plain(210, 220, 230, 240)
    index, close = np.array([3, 0, 1]), np.array([False, True, False])
    figure = nearest_pairs(samples, train, index, np.array([0.1, 0.2, 0.3]), close, columns=3, cell=32)
    assert greys_along(figure, 6 + 16) == [10, 240, 20, 210, 30, 220]
    pixels = np.asarray(figure)
    framed = (pixels == ALARM).all(-1)
    columns = np.flatnonzero(framed[: 6 + 32].any(0))
    width = 2 * 32 + 2
    assert columns.min() == 6 + width + 16 - 4 and columns.max() == 6 + 2 * width + 16 + 3
    nothing = nearest_pairs(samples, train, index, np.array([0.1, 0.2, 0.3]), ~np.ones(3, bool), columns=3, cell=32)
    assert not (np.asarray(nothing) == ALARM).all(-1).any()


def test_the_nearest_half_is_shown_first_then_a_walk_to_the_farthest():
    distances = np.random.default_rng(4).permutation(100) / 100
    chosen = least_and_most(distances, 10)
    assert distances[chosen[:5]].tolist() == [0.0, 0.01, 0.02, 0.03, 0.04]
    assert distances[chosen[-1]] == 0.99 and len(set(chosen.tolist())) == 10
    assert (np.diff(distances[chosen]) > 0).all()
    assert least_and_most(distances[:4], 10).tolist() == np.argsort(distances[:4]).tolist()


def test_a_written_figure_carries_its_caption(tmp_path):
    path = write_figure(tmp_path, "nearest", class_grid(plain(7), np.array([0]), ["0"]), "Näher ≤ 0.1 <b>")
    assert path == tmp_path / "evaluation" / "figures" / "nearest.png"
    with Image.open(path) as image:
        assert image.info[CAPTION_KEY] == "Näher ≤ 0.1 <b>"
        assert image.mode == "RGBA"
