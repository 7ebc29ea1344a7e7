"""Several runs on one page: the fields and origins they differ in, scores in columns, samples side by side.

A score stands in one row for all runs. What else decided it (sampler, evaluator, counts, versions) stands above it
wherever two runs differ there, so that numbers of different protocols are never read as one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fae_jax.config import flatten
from fae_jax.files.paths import Path
from fae_jax.files.writing import write_atomically
from fae_jax.report.page import hero
from fae_jax.report.reading import Embedded, Record, branch
from fae_jax.report.scores import flat
from fae_jax.report.templates import render
from fae_jax.report.words import Table, heading, number

# Those of a result's words that decide its numbers; the other leaves are its scores
ORIGIN = ("origin", "sampling", "judge", "space", "dimensions", "compared", "distance", "too_few")
# What belongs to a run itself, in which any two differ; and what a run's own report shows
LEFT_OUT = {"schema", "weights", "digest", "seconds", "stages"}
LEFT_OUT |= {"accuracy_per_class", "count_per_class", "lowest_class"}
ABSENT = "–"


def _beside(columns: Sequence[Mapping[str, str]], *, differing: bool) -> list[tuple[str, ...]]:
    """Rows (name, value of each run); only those that differ, or all."""
    names = {name: None for column in columns for name in column}
    rows = [(name, *(column.get(name, ABSENT) for column in columns)) for name in names]
    return [row for row in rows if not differing or len(set(row[1:])) > 1]


def _split(result: Any, *, origin: bool = False) -> tuple[dict[str, Any], dict[str, Any]]:
    """A result as (what decided it, its scores), both of the result's own nesting."""
    decided: dict[str, Any] = {}
    scores: dict[str, Any] = {}
    for key, value in result.items():
        if key in LEFT_OUT or (origin and key == "sets"):  # `sampling` says those of a set once more
            continue
        if isinstance(value, Mapping):
            below, measured = _split(value, origin=origin or key in ORIGIN)
            decided |= {key: below} if below else {}
            scores |= {key: measured} if measured else {}
        elif origin or key in ORIGIN or isinstance(value, str):
            decided[key] = value
        elif isinstance(value, int | float):
            scores[key] = value
    return decided, scores


def _task(name: str, runs: Sequence[str], records: Sequence[Record]) -> tuple[str, list[Table]]:
    """A task's heading and its tables: where the origins differ, and all scores."""
    parts = [_split(branch(record.results, name)) for record in records]
    origins = _beside([dict(flat(decided)) for decided, _ in parts], differing=True)
    scores = _beside([dict(flat(measured)) for _, measured in parts], differing=False)
    tables = [Table(("origin differs in", *runs), origins)] if origins else []
    return heading(name), [*tables, Table(("score", *runs), scores)]


def _training(runs: Sequence[str], records: Sequence[Record]) -> Table:
    """The last step and loss of each stage."""
    rows = []
    for stages in zip(*(record.stages for record in records), strict=True):
        if any(stage.begun for stage in stages):
            cells = (f"{number(stage.last('loss'))} at {number(stage.step)}" for stage in stages)
            rows.append((heading(stages[0].name), *cells))
    return Table(("loss at step", *runs), rows)


def make_comparison(workdirs: Sequence[Path]) -> str:
    """The page as HTML; runs are called by their directories' names, by whole paths where two are alike."""
    records = [Record.read(workdir, previews=0) for workdir in workdirs]
    names = [workdir.resolve().name for workdir in workdirs]
    runs = names if len(set(names)) == len(names) else [str(workdir) for workdir in workdirs]
    fields = _beside(
        [{name: str(value) for name, value in flatten(r.config).items()} for r in records], differing=True
    )
    tasks = {name: None for record in records for name in record.results}
    drawn: list[tuple[str, tuple[str, Embedded] | None]] = list(zip(runs, map(hero, records), strict=True))
    return render(
        "comparison.html",
        runs=runs,
        fields=Table(("field", *runs), fields),
        training=_training(runs, records),
        tasks=[_task(name, runs, records) for name in tasks],
        drawn=[(run, *images) for run, images in drawn if images is not None],
    )


def write_comparison(workdirs: Iterable[Path]) -> Path:
    """Draws `comparison.html` in the first of several working directories; returns its path.

    Raises:
      ValueError: one is given twice.
      OSError: it cannot be written; an earlier page is kept.
    """
    workdirs = list(workdirs)
    for place, workdir in enumerate(workdirs):
        if workdir.resolve() in [other.resolve() for other in workdirs[:place]]:
            raise ValueError(f"{workdir} is given twice; a run is compared with others")
    return write_atomically(workdirs[0] / "comparison.html", make_comparison(workdirs))
