"""Who goes on: successive halving as a function of the points' own metrics.

    A₀ = all points,   A_{k+1} = the best ⌈keep · |A_k|⌉ of A_k by the metric at step s_k          (1)

Every process can work it out for itself, from files that are there once all points of A_k have passed step s_k.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from fae_jax.sweeps.axes import Number
from fae_jax.sweeps.declaration import halving_metric
from fae_jax.sweeps.directory import SweepDirectory, outcome
from fae_jax.training.monitoring import read_metrics


def best(values: Sequence[Number | None], *, lower: bool) -> list[int]:
    """Places in order from the best value; None and what is not finite last, equal values in their own order."""

    def rank(place: int) -> tuple[bool, float]:
        value = values[place]
        if value is None or not math.isfinite(value):
            return (True, 0.0)
        return (False, float(value if lower else -value))

    return sorted(range(len(values)), key=rank)


def survivors(values: Sequence[Sequence[Number | None]], keep: float, *, lower: bool) -> list[list[int]]:
    """Equation (1): A_1, A_2, …

    Args:
      values: per step s_k, per point; those of points that were stopped before are not looked at.
    """
    alive = list(range(len(values[0]))) if values else []
    rounds = []
    for row in values:
        order = best([row[point] for point in alive], lower=lower)
        alive = sorted(alive[place] for place in order[: math.ceil(keep * len(alive))])
        rounds.append(alive)
    return rounds


def behind(directory: SweepDirectory, number: int, rungs: int) -> dict[str, Any] | None:
    """Whether the first `rungs` decisions stop a point: at which step and by what, or None.

    Raises:
      ValueError: a point that is still in has not reached a step yet, and did not fail.
    """
    stop = directory.sweep.stop
    if stop is None or not rungs:
        return None
    stage, name = halving_metric(directory.sweep)
    lower = bool(directory.sweep.prefers_lower(f"{stage}.{name}"))
    rows = [
        {row["step"]: row.get(name) for row in read_metrics(point.workdir.stage(stage) / "metrics.jsonl")}
        for point in directory.points
    ]
    failed = [outcome(point.workdir)["outcome"] == "failed" for point in directory.points]
    alive, columns = list(range(len(rows))), []
    for step in stop.steps[:rungs]:
        for place in alive:
            if step not in rows[place] and not failed[place]:
                raise ValueError(
                    f"point {directory.points[place].name} has not reached step {step} of {stage}, where the sweep "
                    f"decides who goes on; run `{directory.command} --point {place}` first"
                )
        columns.append([row.get(step) for row in rows])
        alive = survivors(columns, stop.keep, lower=lower)[-1]
        if number not in alive:
            last = alive[best([columns[-1][place] for place in alive], lower=lower)[-1]]
            values = {"value": columns[-1][number], "needed": columns[-1][last]}
            return {"stage": stage, "step": step, "metric": f"{stage}.{name}", **values}
    return None
