"""Foreground, queries, maps and matches on scenes whose answers are known, and the figures drawn of them."""

import numpy as np
import pytest

from fae_jax.evaluation.matches import Matches, foreground, matches, queries, similarity_map
from fae_jax.evaluation.semantics_figures import SCALE, heat, matching_figure, similarity, similarity_figure
from fae_jax.evaluation.tasks.semantics import choose_pairs
from fae_jax.stages.figures import cell_size

SIDE, WIDTH = 8, 24


def scene(seed: int, top: int = 2, left: int = 3) -> np.ndarray:
    """Background of one direction, and a 4×3 object whose twelve patches have a direction each."""
    rng = np.random.default_rng(seed)
    features = 0.05 * rng.normal(size=(SIDE, SIDE, WIDTH))
    features[..., 0] += 1
    parts = 0.6 * np.eye(WIDTH)[1:13] + np.eye(WIDTH)[20]
    features[top : top + 4, left : left + 3] = parts.reshape(4, 3, WIDTH) + 0.02 * rng.normal(size=(4, 3, WIDTH))
    return features.astype(np.float32)


PAIR = np.stack([scene(0), scene(1, top=3, left=4)])


def test_the_foreground_is_what_does_not_lie_on_the_border():
    mask = np.zeros((SIDE, SIDE), bool)
    mask[2:6, 3:6] = True
    np.testing.assert_array_equal(foreground(scene(0)), mask)
    assert foreground(np.ones((3, 3, 4), np.float32)).all()


def test_queries_are_different_patches_of_the_foreground_in_reading_order():
    mask = foreground(scene(0))
    for count in (5, 12, 16):
        places = queries(scene(0), mask, count)
        assert len(places) == min(count, 12) and mask[tuple(places.T)].all()
        order = places[:, 0] * SIDE + places[:, 1]
        assert (np.diff(order) > 0).all()
    np.testing.assert_array_equal(queries(scene(0), mask, 5), queries(scene(0), mask, 5))
    assert len(queries(np.ones((3, 3, 4), np.float32), np.ones((3, 3), bool), 4)) == 4


def test_a_map_is_the_cosine_whatever_the_lengths():
    features = scene(3)
    scaled = features * np.linspace(0.1, 9, SIDE)[:, None, None].astype(np.float32)
    cosines = similarity_map(scaled, np.array([2, 3]))
    a, b = features[2, 3], features[5, 5]
    assert cosines[2, 3] == pytest.approx(1) and cosines[5, 5] == pytest.approx(
        a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-5
    )
    np.testing.assert_allclose(cosines, similarity_map(features, np.array([2, 3])), atol=1e-5)


def test_the_same_part_is_found_where_it_moved_to():
    asked = queries(PAIR[0], foreground(PAIR[0]), 16)
    np.testing.assert_array_equal(matches(PAIR[0], PAIR[1], asked), asked + 1)


def test_agreement_tells_a_faithful_space_from_a_shifted_and_from_a_random_one():
    rng = np.random.default_rng(4)
    shifted = PAIR.copy()
    shifted[1] = np.roll(PAIR[1], 1, axis=0)  # every match one row lower
    random = rng.normal(size=(2, SIDE, SIDE, 5)).astype(np.float32)
    matched = Matches.of({"x": PAIR, "reconstructed": shifted, "z": random}, 12)
    same = Matches.of({"x": PAIR, "reconstructed": 3 * PAIR, "z": PAIR}, 12).agreement("reconstructed")
    assert same == pytest.approx(
        {"similarity_maps": 1.0, "matches": 1.0, "matches_within_one": 1.0, "match_error": 0.0}, abs=1e-5
    )
    moved, other = matched.agreement("reconstructed"), matched.agreement("z")
    assert (moved["matches"], moved["matches_within_one"], moved["match_error"]) == (0.0, 1.0, 1.0)
    assert abs(other["similarity_maps"]) < 0.3 and other["matches_within_one"] < 0.6 and other["match_error"] > 1
    assert matched.as_result()["queries"] == 24 and set(matched.as_result()["agreement_with_x"]) == {
        "reconstructed",
        "z",
    }


def test_pairs_are_spread_and_of_one_class():
    labels = [0, 1, 0, 1, 2, 2, 0, 1, 1, 0]
    chosen = choose_pairs(labels.__getitem__, 10, 6)
    assert chosen == [0, 2, 4, 5, 8, 7]  # no other of class 1 comes after 8
    assert choose_pairs(range(10).__getitem__, 10, 2) == [0, 1]
    assert choose_pairs(lambda place: 0, 2, 8) == [0, 1]
    with pytest.raises(ValueError, match="the held-out split has 1"):
        choose_pairs(lambda place: 0, 1, 8)
    with pytest.raises(ValueError, match="in pairs, got 1"):
        Matches.of({"x": PAIR[:1]}, 4)


def test_figures_mark_the_query_and_are_the_same_each_time():
    images = np.random.default_rng(5).integers(0, 200, (2, 32, 32, 3), dtype=np.uint8)
    matched = Matches.of({"x": PAIR, "reconstructed": PAIR, "z": PAIR}, 6)
    first, again = similarity_figure(images, matched), similarity_figure(images, matched)
    assert first.tobytes() == again.tobytes()
    size, cell = cell_size(32, 32, 128), 128 // SIDE
    query = matched.typical(0)
    x, y = 92 + query[1] * cell, query[0] * cell
    assert size == (128, 128) and first.getpixel((int(x), int(y)))[:3] == (235, 60, 50)
    drawn = matching_figure(images, matched)
    assert drawn.tobytes() == matching_figure(images, matched).tobytes()
    assert drawn.width > 3 * 2 * 192 and drawn.height >= 192


def test_heat_runs_over_the_map_without_the_query_itself():
    colours = heat(np.array([[0.0, 0.5], [0.75, 1.0]]))
    assert colours[0, 0].tolist() == SCALE[0].tolist() and colours[1, 1].tolist() == SCALE[-1].tolist()
    assert heat(np.zeros((2, 2))).shape == (2, 2, 3)
    matched = Matches.of({"x": PAIR, "reconstructed": PAIR, "z": PAIR}, 6)
    query = matched.typical(0)
    values = similarity(matched, "x", 0, query)
    assert values[tuple(query)] == np.sort(values.reshape(-1))[-2] < 1
