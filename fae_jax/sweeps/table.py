"""What came out: a row per point, as text, CSV and JSON, from the metrics and evaluations in the working directories.

A metric is STAGE.NAME (the last row of STAGE/metrics.jsonl, and the curve to it) or TASK.path.to.value (in
evaluation/TASK.json), such as features.loss or generation.sets.guided.frechet.samples_to_heldout.
"""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fae_jax.files.names import nearest
from fae_jax.files.writing import read_json, write_atomically, write_json
from fae_jax.stages import STAGES
from fae_jax.sweeps.axes import Number
from fae_jax.sweeps.directory import PlacedPoint, SweepDirectory, outcome, short_values
from fae_jax.sweeps.halving import best
from fae_jax.training.monitoring import read_metrics
from fae_jax.workdir import Workdir


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """What is known of a point.

    Attributes:
      state: done, behind at a step, failed, at a step of a stage, or not begun.
      metrics: the latest value of each metric, None where there is none yet.
      place: 1 for the best by the first metric; None without a value, or where nothing says which way is better.
    """

    point: PlacedPoint
    state: str
    metrics: dict[str, Number | None]
    place: int | None


def curve(workdir: Workdir, metric: str) -> list[tuple[int, Number]]:
    """(step, value) of a stage's metric, as far as it was finite; empty for other metrics."""
    stage, _, name = metric.partition(".")
    if stage not in STAGES:
        return []
    rows = read_metrics(workdir.stage(stage) / "metrics.jsonl")
    return [(row["step"], row[name]) for row in rows if isinstance(row.get(name), int | float)]


def _leaves(value: Any, prefix: str) -> Iterator[tuple[str, Number]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, f"{prefix}.{key}")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield prefix, value


def known_metrics(workdir: Workdir) -> dict[str, Number]:
    """Every metric a point has, with its latest value."""
    latest: dict[str, Any] = {}
    for stage in STAGES:
        for row in read_metrics(workdir.stage(stage) / "metrics.jsonl")[-1:]:
            latest[stage] = {name: value for name, value in row.items() if name != "step"}
    for file in sorted(workdir.evaluation.glob("*.json")) if workdir.evaluation.is_dir() else ():
        again = f"remove it, and `fae evaluate --workdir {workdir.root} --task {file.stem}` makes it anew"
        latest[file.stem] = read_json(file, again)
    return dict(pair for name, values in latest.items() for pair in _leaves(values, name))


def state_of(point: PlacedPoint, stages: Sequence[str]) -> str:
    """Where a point is, in a few words."""
    known = outcome(point.workdir)
    if known["outcome"] == "behind":
        return f"behind at step {known['step']}"
    if known["outcome"]:
        return known["outcome"]
    for stage in reversed(stages):
        rows = read_metrics(point.workdir.stage(stage) / "metrics.jsonl")
        if rows:
            return f"{stage} {rows[-1]['step']}"
    return "not begun"


def make_rows(directory: SweepDirectory, metrics: Sequence[str]) -> list[Row]:
    """A row per point, in their order.

    Raises:
      ValueError: there are results, and no point has one of the metrics; the nearest name is given.
    """
    known = [known_metrics(point.workdir) for point in directory.points]
    everything = sorted({name for values in known for name in values})
    for metric in metrics:
        if everything and metric not in everything:
            hint = nearest(metric, everything, cutoff=0.4)
            raise ValueError(f"metric {metric!r} is in no point of {directory.root}; {hint}")
    values = [{metric: all_values.get(metric) for metric in metrics} for all_values in known]
    firsts, lower = [row[metrics[0]] for row in values], directory.sweep.prefers_lower(metrics[0])
    ranking = [] if lower is None else best(firsts, lower=lower)
    places = {point: place + 1 for place, point in enumerate(ranking) if firsts[point] is not None}
    return [
        Row(point=point, state=state_of(point, directory.stages), metrics=row, place=places.get(point.number))
        for point, row in zip(directory.points, values, strict=True)
    ]


def as_text(rows: Sequence[Row], metrics: Sequence[str]) -> str:
    """Columns under headings, points from the best."""
    short = short_values(tuple(row.point.values for row in rows))
    fields = list(dict.fromkeys(name for point in short for name in point))
    lines = [["place", "point", *fields, *metrics, "state"]]
    for row in sorted(rows, key=lambda row: row.place or len(rows) + 1):
        swept = [short[row.point.number].get(field, "") for field in fields]
        results = ["" if row.metrics[metric] is None else f"{row.metrics[metric]:.6g}" for metric in metrics]
        lines.append([str(row.place or ""), str(row.point.number), *swept, *results, row.state])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
    return "".join(f"{line}\n" for line in padded)


def as_csv(rows: Sequence[Row], metrics: Sequence[str]) -> str:
    """A line per point, full field names, numbers in full; empty where there is no value."""
    fields = list(dict.fromkeys(name for row in rows for name in row.point.values))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["point", "name", *fields, *metrics, "place", "state"])
    for row in rows:
        swept, results = (row.point.values.get(field, "") for field in fields), (row.metrics[m] for m in metrics)
        writer.writerow([row.point.number, row.point.name, *swept, *results, row.place, row.state])
    return out.getvalue()


def as_json(directory: SweepDirectory, rows: Sequence[Row], metrics: Sequence[str]) -> dict[str, Any]:
    """Everything in the table, and the best point."""
    directions = {True: "lower", False: "higher", None: ""}
    return {
        "metrics": list(metrics),
        "better": {metric: directions[directory.sweep.prefers_lower(metric)] for metric in metrics},
        "shared_stages": list(directory.shared),
        "best": next((row.point.name for row in rows if row.place == 1), None),
        "points": [
            {
                **{name: getattr(row.point, name) for name in ("number", "name", "values")},
                **{name: getattr(row, name) for name in ("metrics", "place", "state")},
                "workdir": str(row.point.workdir.root),
            }
            for row in rows
        ],
    }


def write_table(directory: SweepDirectory, rows: Sequence[Row], metrics: Sequence[str]) -> str:
    """Writes `table.txt`, `table.csv` and `table.json`; returns the text."""
    text = as_text(rows, metrics)
    write_atomically(directory.root / "table.txt", text)
    write_atomically(directory.root / "table.csv", as_csv(rows, metrics))
    write_json(directory.root / "table.json", as_json(directory, rows, metrics))
    return text
