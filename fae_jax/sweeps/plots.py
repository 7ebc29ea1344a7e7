"""Plots of a sweep, as SVG files and on one page: each metric over each swept field, and every point's curve.

A field's values lie on a linear or logarithmic axis where they are numbers, else side by side in their order. A line
joins the best point at each value; what else was swept makes the other points at that value.
"""

from __future__ import annotations

import dataclasses
import math
import re
import statistics
from collections.abc import Sequence

from fae_jax.files.writing import write_atomically
from fae_jax.report.curves import is_logarithmic, linear_ticks, logarithmic_ticks, thin
from fae_jax.report.templates import render
from fae_jax.report.words import Number, brief, number
from fae_jax.sweeps.directory import SweepDirectory, as_numbers, short_values
from fae_jax.sweeps.halving import best
from fae_jax.sweeps.table import Row, curve

WIDTH, HEIGHT = 640, 400
LEFT, RIGHT, TOP, BOTTOM = 76, 20, 40, 56  # margins around the plotted area
COLOUR = "#3257d4"


@dataclasses.dataclass(frozen=True)
class Scale:
    """Values → places on an axis, 0 to 1."""

    low: Number
    high: Number
    logarithmic: bool
    names: tuple[str, ...] = ()

    @classmethod
    def over(cls, values: Sequence[Number]) -> Scale:
        """An axis that holds all values with some room."""
        logarithmic = is_logarithmic(values)
        heights = [math.log10(value) if logarithmic else value for value in values]
        room = 0.06 * (max(heights) - min(heights)) or 0.06 * abs(heights[0]) or 1.0
        return cls(min(heights) - room, max(heights) + room, logarithmic)

    @classmethod
    def named(cls, names: Sequence[str]) -> Scale:
        """An axis with a place for each name: values 0, 1, …"""
        return cls(-0.5, len(names) - 0.5, False, tuple(names))

    def place(self, value: Number) -> float:
        height = math.log10(value) if self.logarithmic else value
        return (height - self.low) / (self.high - self.low)

    def ticks(self) -> list[tuple[Number, str]]:
        """(value, lettering)."""
        if self.names:
            return [(float(place), name) for place, name in enumerate(self.names)]
        if self.logarithmic:
            return [(tick, brief(tick)) for tick in logarithmic_ticks(10**self.low, 10**self.high)]
        return [(tick, brief(tick)) for tick in linear_ticks(self.low, self.high, 5)]


@dataclasses.dataclass(frozen=True)
class Line:
    """Path data, what it shows, and how it looks."""

    path: str
    words: str
    colour: str = COLOUR
    width: Number = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plot:
    """What `plot.svg` draws.

    Attributes:
      title, below: the metric, and what it is drawn over.
      x, y: its axes.
      dots: (x, y, radius, words), in pixels.
      legend: each line's words are written in its colour.
    """

    title: str
    below: str
    x: Scale
    y: Scale
    lines: list[Line]
    dots: list[tuple[Number, Number, Number, str]] = dataclasses.field(default_factory=list)
    legend: bool = False

    def svg(self) -> str:
        """The plot as an SVG file."""
        sides = {"left": LEFT, "right": WIDTH - RIGHT, "top": TOP, "bottom": HEIGHT - BOTTOM}
        rows = [(_down(self.y, value), text) for value, text in self.y.ticks()]
        columns = [(_across(self.x, value), text) for value, text in self.x.ticks()]
        return render("plot.svg", plot=self, rows=rows, columns=columns, width=WIDTH, height=HEIGHT, **sides)


def _across(x: Scale, value: Number) -> float:
    return round(LEFT + x.place(value) * (WIDTH - LEFT - RIGHT), 1)


def _down(y: Scale, value: Number) -> float:
    return round(TOP + (1 - y.place(value)) * (HEIGHT - TOP - BOTTOM), 1)


def _path(x: Scale, y: Scale, points: Sequence[tuple[Number, Number]]) -> str:
    return "M" + "L".join(f"{_across(x, value)} {_down(y, result)}" for value, result in points)


def over_field(field: str, metric: str, rows: Sequence[Row], *, lower: bool | None) -> Plot | None:
    """A metric over a swept field; None where fewer than two values have a result.

    Where nothing says whether lower or higher is better, no point is the best, and the line joins the means.
    """
    kept = [row for row in rows if field in row.point.values and row.metrics[metric] is not None]
    values = [row.point.values[field] for row in kept]
    results = [float(row.metrics[metric] or 0.0) for row in kept]
    numbers, names = as_numbers(values), list(dict.fromkeys(map(str, values)))
    across = numbers or [float(names.index(str(value))) for value in values]
    if len(set(across)) < 2:
        return None
    x, y = Scale.over(across) if numbers else Scale.named([name[:16] for name in names]), Scale.over(results)
    chosen = statistics.fmean if lower is None else min if lower else max
    leaders = [
        (value, chosen([result for at, result in zip(across, results, strict=True) if at == value]))
        for value in sorted(set(across))
    ]
    winner = None if lower is None else best(results, lower=lower)[0]
    dots = [
        (_across(x, at), _down(y, result), 6 if place == winner else 3.5, f"{row.point.name}: {number(result)}")
        for place, (row, at, result) in enumerate(zip(kept, across, results, strict=True))
    ]
    line = Line(_path(x, y, leaders), metric, width=2)
    return Plot(title=metric, below=field, x=x, y=y, lines=[line], dots=dots)


def all_curves(metric: str, directory: SweepDirectory) -> Plot | None:
    """Every point's curve of a stage's metric, from blue for the first point to orange for the last."""
    curves = [curve(point.workdir, metric) for point in directory.points]
    together = [pair for points in curves for pair in points]
    if len({step for step, _ in together}) < 2:
        return None
    x, y = Scale(0.0, max(step for step, _ in together), False), Scale.over([value for _, value in together])
    names = [
        ", ".join(f"{name}={text}" for name, text in point.items()) for point in short_values(directory.sweep.points)
    ]

    hues = [225 - round(200 * place / max(len(curves) - 1, 1)) for place in range(len(curves))]
    lines = [
        Line(_path(x, y, thin(points)) if points else "", name, f"hsl({hue},70%,40%)")
        for points, name, hue in zip(curves, names, hues, strict=True)
    ]
    return Plot(title=metric, below="step", x=x, y=y, lines=lines, legend=len(curves) <= 12)


def write_plots(directory: SweepDirectory, rows: Sequence[Row], metrics: Sequence[str], text: str) -> list[str]:
    """Writes `plots/*.svg` and `index.html`; returns the names of the plots."""
    fields = list(dict.fromkeys(name for point in directory.sweep.points for name in point))
    plots: dict[str, Plot | None] = {}
    for metric in metrics:
        for field in fields:
            plots[f"{metric} over {field}"] = over_field(
                field, metric, rows, lower=directory.sweep.prefers_lower(metric)
            )
        plots[f"{metric} over steps"] = all_curves(metric, directory)
    drawn = {re.sub(r"[^\w.=-]+", "_", name): plot.svg() for name, plot in plots.items() if plot is not None}
    for name, drawing in drawn.items():
        write_atomically(directory.root / "plots" / f"{name}.svg", drawing + "\n")
    title = f"Sweep {directory.root.name}"
    write_atomically(
        directory.root / "index.html", render("sweep.html", title=title, text=text, plots=list(drawn.values()))
    )
    return sorted(drawn)
