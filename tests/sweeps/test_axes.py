"""Points from axes: how many, in which order, and the same ones every time."""

import numpy as np
import pytest

from fae_jax.sweeps.axes import grid, listed, log_uniform, product, random, uniform, whole, zipped


def test_a_grid_has_every_combination_once_and_the_last_field_changes_fastest():
    points = grid({"a": (1, 2), "b": ("x", "y", "z")})
    assert [tuple(point.values()) for point in points] == [(1, "x"), (1, "y"), (1, "z"), (2, "x"), (2, "y"), (2, "z")]


def test_zipped_fields_go_side_by_side_and_nest_in_products():
    together = zipped({"a": (1, 2), "b": (3, 4)})
    assert together == ({"a": 1, "b": 3}, {"a": 2, "b": 4})
    nested = product(together, grid({"c": (5, 6)}))
    assert nested[1] == {"a": 1, "b": 3, "c": 6} and len(nested) == 4
    assert listed({"a": 1}) + grid({"c": (5,)}) == ({"a": 1}, {"c": 5})


def test_random_points_are_a_function_of_seed_point_and_field():
    fields = {"rate": log_uniform(1e-4, 1e-2), "depth": whole(1, 4), "kind": ("x", "y")}
    points = random(40, fields, seed=3)
    assert points == random(40, fields, seed=3) and points != random(40, fields, seed=4)
    assert points[:5] == random(5, fields, seed=3)
    more = random(40, {**fields, "beta": uniform(0, 1)}, seed=3)
    assert [{k: v for k, v in point.items() if k != "beta"} for point in more] == list(points)


def test_random_values_are_of_their_range_and_kind():
    points = random(400, {"rate": log_uniform(1e-4, 1e-2), "depth": whole(1, 3), "even": uniform(-1, 1)})
    rates = np.array([point["rate"] for point in points])
    assert rates.min() >= 1e-4 and rates.max() <= 1e-2
    assert abs(np.log10(rates).mean() + 3) < 0.1  # as many below 1e-3 as above
    assert {point["depth"] for point in points} == {1, 2, 3} and type(points[0]["depth"]) is int
    assert abs(np.mean([point["even"] for point in points])) < 0.1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: grid({}), "needs at least one field"),
        (lambda: grid({"a": ()}), "field a needs a sequence of values"),
        (lambda: grid({"a": "abc"}), "field a needs a sequence of values to sweep over, got 'abc'"),
        (lambda: zipped({"a": (1, 2), "b": (1,)}), "a has 2, b has 1"),
        (lambda: product(grid({"a": (1,)}), grid({"a": (2,)})), "field a is in two parts"),
        (lambda: log_uniform(0, 1), "from a low to a high number"),
        (lambda: uniform(1, 1), "from a low to a high number"),
        (lambda: random(0, {"a": (1,)}), "at least one point"),
    ],
)
def test_what_is_no_axis(make, message: str):
    with pytest.raises(ValueError, match=message):
        make()
