"""Curves by their coordinates."""

import numpy as np
import pytest

from fae_jax.report.curves import (
    HEIGHT,
    MOST_POINTS,
    WIDTH,
    chart,
    is_logarithmic,
    linear_ticks,
    logarithmic_ticks,
    smooth,
    thin,
)


def corners(path: str) -> np.ndarray:
    """The corners of a path."""
    return np.array([[float(x) for x in corner.split()] for corner in path.removeprefix("M").split("L")])


def test_a_curve_runs_from_corner_to_corner_and_higher_is_up():
    drawn = chart([(0, 1.0), (5, 3.0), (10, 2.0)], "loss")
    line = corners(drawn.line)
    np.testing.assert_allclose(line[:, 0], [0, WIDTH / 2, WIDTH])
    assert line[1, 1] < line[2, 1] < line[0, 1]
    assert line[:, 1].min() > 0 and line[:, 1].max() < HEIGHT
    assert (50.0, "2") in drawn.rows and (50.0, "5") in drawn.columns


def test_a_wide_range_is_logarithmic_so_equal_factors_are_equal_steps():
    assert is_logarithmic([100.0, 1.0]) and not is_logarithmic([2.0, 1.0])
    assert not is_logarithmic([100.0, -1.0]) and not is_logarithmic([100.0, 0.0])
    steps = np.diff(corners(chart([(0, 100.0), (1, 10.0), (2, 1.0)], "loss").line)[:, 1])
    assert steps[0] == pytest.approx(steps[1], abs=0.11)


def test_long_curves_are_thinned_smoothed_and_keep_their_ends():
    rng = np.random.default_rng(0)
    points = [(step, 5.0 + float(rng.normal())) for step in range(10_000)]
    kept = thin(points)
    assert len(kept) == MOST_POINTS and kept[0] == points[0] and kept[-1] == points[-1]
    assert np.mean([value for _, value in kept]) == pytest.approx(5.0, abs=0.05)
    drawn = chart(points, "loss")
    assert len(corners(drawn.raw)) == len(corners(drawn.line)) == MOST_POINTS
    assert corners(drawn.line)[:, 1].std() < 0.5 * corners(drawn.raw)[:, 1].std()
    assert chart(points[:20], "loss").raw == ""


def test_smoothing_keeps_constants_and_lines():
    np.testing.assert_allclose(smooth([2.0] * 200), 2.0)
    np.testing.assert_allclose(smooth(list(range(200)))[20:-20], np.arange(200)[20:-20])


def test_ticks_are_round_and_inside():
    assert linear_ticks(0.0, 1.0) == [0, 0.25, 0.5, 0.75, 1.0]
    assert linear_ticks(1, 600) == [200, 400, 600]
    assert linear_ticks(-0.03, 0.031) == [-0.02, 0, 0.02]
    assert linear_ticks(5.0, 5.0) == [5.0]
    assert logarithmic_ticks(0.08, 3.1) == [0.1, 0.2, 0.5, 1, 2]
    for low, high in ((0.02, 0.9), (1e-6, 1e6), (0.3, 8.0), (1.5, 45.0)):
        ticks = logarithmic_ticks(low, high)
        assert 1 <= len(ticks) <= 5 and all(low <= tick <= high for tick in ticks)
        assert ticks == sorted(ticks)


def test_curves_of_one_point_of_one_value_and_of_zeros_are_drawn():
    for points in ([(7, 2.0)], [(0, 1.0), (9, 1.0)], [(0, 0.0), (1, 0.0)], [(3, -2.0), (3, -1.0)]):
        line = corners(chart(points, "loss").line)
        assert np.isfinite(line).all() and len(line) >= 2


def test_a_curve_says_in_words_what_it_shows():
    drawn = chart([(1, 4.0), (1200, 0.5)], "encoder, loss")
    assert drawn.words == "encoder, loss: 4 at step 1, 0.500 at step 1,200"
    assert (drawn.first, drawn.last) == (4.0, 0.5)
