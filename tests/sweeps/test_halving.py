"""Who goes on is a function of the metrics at given steps."""

import math
from pathlib import Path

import numpy as np
import pytest
from making import begun, leave_metrics

from fae_jax.sweeps.axes import grid
from fae_jax.sweeps.declaration import Halving
from fae_jax.sweeps.directory import SweepDirectory, conclude
from fae_jax.sweeps.halving import behind, best, survivors


def test_the_best_come_first_and_what_has_no_value_last():
    assert best([3.0, 1.0, None, 2.0, math.nan, 1.0], lower=True) == [1, 5, 3, 0, 2, 4]
    assert best([3.0, 1.0, None, math.inf], lower=False) == [0, 1, 2, 3]


def test_each_round_keeps_a_share_of_those_before_by_their_values_then():
    values = np.random.default_rng(0).normal(size=(3, 9))
    rounds = survivors(values.tolist(), 0.5, lower=True)
    assert [len(alive) for alive in rounds] == [5, 3, 2]
    before = set(range(9))
    for row, alive in zip(values, rounds, strict=True):
        worst = max(row[list(alive)])
        assert set(alive) <= before and all(row[point] > worst for point in before - set(alive))
        before = set(alive)


def make(tmp_path: Path, **stop: object) -> SweepDirectory:
    return begun(
        tmp_path / "s",
        points=grid({"features.beta": (1e-4, 1e-3, 1e-2, 1e-1)}),
        metric="features.loss",
        stages=("features",),
        stop=Halving(**{"steps": (2, 4), **stop}),
    )


def test_a_point_behind_knows_where_and_by_how_much(tmp_path: Path):
    directory = make(tmp_path)
    for number, loss in enumerate(([4, 3], [4, 1], [4, None], [4, 2])):
        leave_metrics(directory, number, "features", loss=loss)
    assert [bool(behind(directory, number, 1)) for number in range(4)] == [True, False, True, False]
    expected = {"stage": "features", "step": 2, "metric": "features.loss", "value": 3, "needed": 2}
    assert behind(directory, 0, 1) == expected
    assert behind(directory, 0, 0) is None
    # The second decision needs those that are still in, and only those.
    leave_metrics(directory, 1, "features", loss=[4, 1, 1, 5])
    with pytest.raises(ValueError, match="has not reached step 4 of features.*--point 3"):
        behind(directory, 1, 2)
    conclude(directory.points[3].workdir, "failed", reason="it burst")
    assert behind(directory, 1, 2) is None and behind(directory, 3, 2)["value"] is None
    assert behind(directory, 0, 2) == expected


def test_higher_may_be_better_and_ties_go_to_the_earlier(tmp_path: Path):
    directory = make(tmp_path, metric="features.feature_cosine", keep=0.25, steps=(1,))
    for number, cosine in enumerate((0.5, 0.9, 0.9, 0.1)):
        leave_metrics(directory, number, "features", feature_cosine=[cosine])
    assert [behind(directory, number, 1) is None for number in range(4)] == [False, True, False, False]
