"""Plots of a sweep, as SVG files and on one page: each metric over each swept field, and every point's curve.

A field's values lie on a linear or logarithmic axis where they are numbers, else side by side in their order. A line
joins the best point at each value; what else was swept makes the other points at that value.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Sequence

from fae_jax.files.writing import write_atomically
from fae_jax.report.curves import is_logarithmic, linear_ticks, logarithmic_ticks, thin
from fae_jax.report.markup import Markup, tag
from fae_jax.report.words import Number, brief, number
from fae_jax.sweeps.directory import SweepDirectory, as_numbers, short_values
from fae_jax.sweeps.halving import best
from fae_jax.sweeps.table import Row, curve

WIDTH, HEIGHT = 640, 400
LEFT, RIGHT, TOP, BOTTOM = 76, 20, 40, 56  # margins around the plotted area
INK, FAINT, COLOUR = "#5c626d", "#d8d5cd", "#3257d4"


@dataclasses.dataclass(frozen=True)
class Scale:
    """Values → places on an axis, 0 to 1."""

    low: Number
    high: Number
    logarithmic: bool
    names: tuple[str, ...] = ()

    @classmethod
    def over(cls, values: Sequence[Number], margin: Number = 0.06) -> Scale:
        """An axis that holds all values with some room."""
        logarithmic = is_logarithmic(values)
        heights = [math.log10(value) if logarithmic else value for value in values]
        room = (max(heights) - min(heights)) * margin or abs(heights[0]) * margin or 1.0
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


def _drawing(title: str, below: str, x: Scale, y: Scale, marks: Callable[[Callable], list[Markup]]) -> Markup:
    """Axes, ticks and lettering around `marks`, which is given (x, y) → (pixel x, pixel y)."""
    inner = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM)

    def place(across: Number, up: Number) -> tuple[Number, Number]:
        return round(LEFT + x.place(across) * inner[0], 1), round(TOP + (1 - y.place(up)) * inner[1], 1)

    lines, letters = [], []
    for value, text in y.ticks():
        height = round(TOP + (1 - y.place(value)) * inner[1], 1)
        lines.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=height, y2=height, stroke=FAINT))
        letters.append(tag("text", text, x=LEFT - 8, y=height + 4, text_anchor="end"))
    for value, text in x.ticks():
        across = round(LEFT + x.place(value) * inner[0], 1)
        letters.append(tag("text", text, x=across, y=HEIGHT - BOTTOM + 20, text_anchor="middle"))
    return tag(
        "svg",
        tag("rect", width=WIDTH, height=HEIGHT, fill="#fff"),
        lines,
        marks(place),
        letters,
        tag("text", title, x=LEFT, y=22, font_weight="600"),
        tag("text", below, x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 14, text_anchor="middle"),
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        width=WIDTH,
        height=HEIGHT,
        font_family="sans-serif",
        font_size="13",
        fill=INK,
        role="img",
        aria_label=title,
    )


def over_field(field: str, metric: str, rows: Sequence[Row], *, lower: bool) -> Markup | None:
    """A metric over a swept field; None where fewer than two values have a result."""
    kept = [row for row in rows if field in row.point.values and row.metrics[metric] is not None]
    values = [row.point.values[field] for row in kept]
    results = [float(row.metrics[metric] or 0.0) for row in kept]
    across = as_numbers(values)
    if across is None:
        names = list(dict.fromkeys(map(str, values)))
        across = [float(names.index(str(value))) for value in values]
        x = Scale.named([name[:16] for name in names]) if names else Scale(0, 1, False)
    else:
        x = Scale.over(across) if across else Scale(0, 1, False)
    if len(set(across)) < 2:
        return None
    y = Scale.over(results)
    leaders = []
    for value in sorted(set(across)):
        here = [result for at, result in zip(across, results, strict=True) if at == value]
        leaders.append((value, here[best(here, lower=lower)[0]]))
    winner = best(results, lower=lower)[0]

    def marks(place: Callable[[Number, Number], tuple[Number, Number]]) -> list[Markup]:
        path = "M" + "L".join("{} {}".format(*place(*leader)) for leader in leaders)
        drawn = [tag("path", d=path, fill="none", stroke=COLOUR, stroke_width="2")]
        for number_, (at, result) in enumerate(zip(across, results, strict=True)):
            cx, cy = place(at, result)
            said = tag("title", f"{kept[number_].point.name}: {number(result)}")
            drawn.append(tag("circle", said, cx=cx, cy=cy, r=6 if number_ == winner else 3.5, fill=COLOUR))
        return drawn

    return _drawing(metric, field, x, y, marks)


def all_curves(metric: str, directory: SweepDirectory) -> Markup | None:
    """Every point's curve of a stage's metric, from blue for the first point to orange for the last."""
    curves = [curve(point.workdir, metric) for point in directory.points]
    together = [pair for points in curves for pair in points]
    if len({step for step, _ in together}) < 2:
        return None
    x, y = Scale.over([step for step, _ in together], margin=0.02), Scale.over([value for _, value in together])
    if x.logarithmic:
        x = Scale(0.0, float(max(step for step, _ in together)), False)
    names = [
        ", ".join(f"{name}={text}" for name, text in point.items()) for point in short_values(directory.sweep.points)
    ]

    def marks(place: Callable[[Number, Number], tuple[Number, Number]]) -> list[Markup]:
        drawn = []
        for number_, points in enumerate(curves):
            hue = 225 - round(200 * number_ / max(len(curves) - 1, 1))
            path = "L".join("{} {}".format(*place(*pair)) for pair in thin(points))
            if path:
                said = tag("title", names[number_])
                drawn.append(tag("g", said, tag("path", d=f"M{path}"), fill="none", stroke=f"hsl({hue},70%,48%)"))
            if len(curves) <= 12:
                height = TOP + 14 + 16 * number_
                style = {"text_anchor": "end", "fill": f"hsl({hue},70%,40%)", "font_size": "11"}
                drawn.append(tag("text", names[number_][:60], x=WIDTH - RIGHT - 4, y=height, **style))
        return drawn

    return _drawing(metric, "step", x, y, marks)


def write_plots(directory: SweepDirectory, rows: Sequence[Row], metrics: Sequence[str], text: str) -> list[str]:
    """Writes `plots/*.svg` and `index.html`; returns the names of the plots."""
    lower = directory.sweep.better == "lower"
    fields = list(dict.fromkeys(name for point in directory.sweep.points for name in point))
    drawings: dict[str, Markup | None] = {}
    for metric in metrics:
        for field in fields:
            drawings[f"{metric} over {field}"] = over_field(field, metric, rows, lower=lower)
        drawings[f"{metric} over steps"] = all_curves(metric, directory)
    shown = {re.sub(r"[^\w.=-]+", "_", name): drawing for name, drawing in drawings.items() if drawing is not None}
    for name, drawing in shown.items():
        write_atomically(directory.root / "plots" / f"{name}.svg", drawing + "\n")
    title = f"Sweep {directory.root.name}"
    page = tag(
        "html",
        tag("head", tag("meta", charset="utf-8"), tag("title", title)),
        tag("body", tag("h1", title), tag("pre", text), list(shown.values()), style="font-family:sans-serif"),
        lang="en",
    )
    write_atomically(directory.root / "index.html", f"<!doctype html>\n{page}\n")
    return sorted(shown)
