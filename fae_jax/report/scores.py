"""The samples by class, how well each is recognised, what they are near to; and results the page has no words for."""

from __future__ import annotations

import dataclasses
from typing import Any

from fae_jax.report.reading import Embedded, Record, SampleSet, at, branch, embed, measured
from fae_jax.report.words import Table, number, percent, spoken
from fae_jax.stages.figures import class_grid

MOST_CLASSES = 24
MOST_ROWS = 40
# What the page has a place for; everything else in evaluation/ stands under "More results".
RESULTS = {"generation", "reconstruction", "probe", "retrieval", "zero_shot", "semantics"}
SET = {
    *("count", "sampling", "accuracy", "accuracy_per_class", "count_per_class", "lowest_class", "judge", "frechet"),
    *("nearest", "psnr", "psnr_lowest", "ssim", "ssim_lowest", "mean_squared_error"),
}
FIGURES = {"reconstructions", "features", "nearest", "similarity", "matching"}


def class_rows(samples: SampleSet, names: list[str] | None) -> Embedded | None:
    """A row per class, lettered, where the images themselves are at hand; else the grid that lies there."""
    if samples.images is None or samples.labels is None or samples.labels.min() < 0:
        return samples.grid
    names = names or [str(label) for label in range(int(samples.labels.max()) + 1)]
    if samples.labels.max() >= len(names):
        return samples.grid
    return embed(class_grid(samples.images, samples.labels.astype(int), names, columns=12, cell=64))


@dataclasses.dataclass(frozen=True, kw_only=True)
class PerClass:
    """How well each class is recognised.

    Attributes:
      sets: names of the sets of samples, in the order of the bars.
      rows: (class, [(position of the set, fraction)]); the weakest classes only, where there are very many.
      cut: some classes are left out.
    """

    sets: list[str]
    rows: list[tuple[str, list[tuple[int, float]]]]
    cut: bool


def per_class(record: Record) -> PerClass | None:
    """Recognised by class; None where no set was scored."""
    sets = branch(record.results, "generation", "sets")
    scored = {name: values for name in sets if (values := branch(sets, name, "accuracy_per_class"))}
    if not scored:
        return None
    order = sorted(scored, key=lambda name: ("unguided", "guided", name).index(name))
    last = scored[order[-1]]
    classes = list(last)
    cut = len(classes) > MOST_CLASSES
    if cut:
        classes = sorted((name for name in classes if measured(last, name) is not None), key=last.__getitem__)
    rows = []
    for name in classes[:MOST_CLASSES]:
        shares = [(position, measured(scored[which], name)) for position, which in enumerate(order)]
        rows.append((name, [(position, share) for position, share in shares if share is not None]))
    return PerClass(sets=order, rows=rows, cut=cut)


def novelty(record: Record) -> Table | None:
    """Distances of samples to their nearest training images, beside those of unseen real images."""
    sets = branch(record.results, "generation", "sets")
    near = {name: values for name in sets if (values := branch(sets, name, "nearest"))}
    if not near:
        return None
    rows = []
    for name, values in near.items():
        close, flagged = percent(measured(values, "fraction_close")), at(values, "close")
        rows.append(
            (
                f"{name} samples",
                number(measured(values, "median_samples")),
                number(measured(values, "median_ratio_samples")),
                f"{close} ({number(len(flagged))})" if isinstance(flagged, list) else close,
                number(measured(values, "identical")),
            )
        )
    real = next(iter(near.values()))
    rows.append(
        (
            "unseen real images",
            number(measured(real, "median_heldout")),
            number(measured(real, "median_ratio_heldout")),
            percent((measured(real, "limit_percentile") or 0) / 100),
            "–",
        )
    )
    heads = ("to the training set", "median distance", "nearest ÷ second", "close", "identical")
    return Table(heads, rows)


def flat(values: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Nested results as (name, value) lines; long lists are only counted."""
    if isinstance(values, dict):
        return [
            line
            for key, value in values.items()
            for line in flat(value, f"{prefix} · {spoken(key)}" if prefix else spoken(key))
        ]
    if isinstance(values, list):
        return [(prefix, f"{len(values)} values" if len(values) > 8 else ", ".join(map(str, values)))]
    plain = isinstance(values, int | float) and not isinstance(values, bool)
    return [(prefix, number(values) if plain else str(values))]


def other_scores(values: dict[str, Any]) -> list[tuple[str, str]]:
    """The scores of a set of images that the page has no words for, as (name, value)."""
    return [line for name in values if name not in SET for line in flat(values[name], spoken(name))]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Other:
    """A result or figure that this page has no words for, drawn as it is."""

    title: str
    table: Table | None
    figures: list[Embedded]


def _beside(name: str, earlier: dict[str, Any], now: dict[str, Any]) -> Other:
    """A result of another origin, TASK-DIGEST.json: what differs from the one that is shown now."""
    then, here = dict(flat(earlier)), dict(flat(now))
    rows = [
        (key, then.get(key, "–"), here.get(key, "–")) for key in {**then, **here} if then.get(key) != here.get(key)
    ]
    more = [(f"{len(rows) - MOST_ROWS} more in evaluation/{name}.json", "", "")] if len(rows) > MOST_ROWS else []
    task, _, digest = name.rpartition("-")
    title = f"{spoken(task)} of another origin ({digest})"
    return Other(title=title, table=Table(("differs in", "then", "now"), rows[:MOST_ROWS] + more), figures=[])


def others(record: Record) -> list[Other]:
    """Every unknown evaluation/TASK.json with its figures, TASK*.png; then the figures that belong to none.

    A figure that two tasks' names begin belongs to the longer name.
    """
    tasks = [name for name in record.results if name not in RESULTS]
    figures: dict[str, list[Embedded]] = {name: [] for name in tasks}
    for name, image in record.figures.items():
        if name not in FIGURES:
            owner = max((task for task in tasks if name.startswith(task)), key=len, default=name)
            figures.setdefault(owner, []).append(image)
    blocks = []
    for name, images in figures.items():
        now = record.results.get(name.rpartition("-")[0])
        if name in tasks and now is not None and not images:
            blocks.append(_beside(name, record.results[name], now))
            continue
        lines = flat(record.results[name]) if name in tasks else []
        more = [(f"{len(lines) - MOST_ROWS} more in evaluation/{name}.json", "")] if len(lines) > MOST_ROWS else []
        table = Table((spoken(name), "value"), lines[:MOST_ROWS] + more) if lines else None
        blocks.append(Other(title=spoken(name), table=table, figures=images))
    return blocks
