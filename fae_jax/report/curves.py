"""Curves without a plotting library: the line is SVG that stretches, the lettering is HTML that does not.

A curve of many points is drawn as the mean of its neighbours, with the points themselves faint behind it. The
vertical axis is logarithmic where the values are positive and span more than a factor of twenty.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fae_jax.report.markup import Markup, tag
from fae_jax.report.words import Number, brief, number

Points = Sequence[tuple[Number, Number]]
WIDTH, HEIGHT = 1000.0, 300.0
MOST_POINTS = 360
SMOOTH_FROM = 60


def thin(points: Points, most: int = MOST_POINTS) -> list[tuple[Number, Number]]:
    """At most `most` points: means of equally long stretches, the first and the last point kept as they are."""
    if len(points) <= most:
        return list(points)
    values = np.asarray(points, np.float64)
    inner = np.array_split(values[1:-1], most - 2)
    return [tuple(row) for row in (points[0], *(part.mean(0).tolist() for part in inner), points[-1])]


def smooth(values: Sequence[Number]) -> list[float]:
    """The running mean of each value and its neighbours over a twentieth of the curve, shorter at the ends."""
    half = max(len(values) // 40, 1)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = [(max(i - half, 0), min(i + half + 1, len(values))) for i in range(len(values))]
    return [float(sums[end] - sums[start]) / (end - start) for start, end in ends]


def is_logarithmic(values: Sequence[Number]) -> bool:
    """Whether a logarithmic axis shows these values better."""
    return min(values) > 0 and max(values) / min(values) > 20


def linear_ticks(low: Number, high: Number, about: int = 4) -> list[Number]:
    """Round numbers from `low` to `high`, about `about` of them."""
    if high <= low:
        return [low]
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(first * step + i * step, 12) for i in range(int((high - first * step) / step + 1e-9) + 1)]


def logarithmic_ticks(low: Number, high: Number, most: int = 5) -> list[Number]:
    """Powers of ten from `low` to `high`, with their doubles and fives where there is room."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        ticks = [round(f * 10.0**p, 12) for p in powers for f in factors if low <= f * 10.0**p <= high]
        if len(ticks) <= most:
            return ticks
    return ticks[:: -(-len(ticks) // most)]


def _path(points: Sequence[tuple[Number, Number]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def chart(points: Points, *, label: str, axes: bool = True) -> Markup:
    """A curve over steps, with axes or, without them, as a small spark."""
    kept = thin(points)
    steps, values = [step for step, _ in kept], [value for _, value in kept]
    logarithmic = is_logarithmic(values)
    scale = math.log10 if logarithmic else float
    heights = [scale(value) for value in values]
    low, high = min(heights), max(heights)
    pad = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    low, high = low - pad, high + pad
    first, last = steps[0], steps[-1]
    span = (last - first) or 1.0

    def place(step: Number, height: Number) -> tuple[float, float]:
        return (step - first) / span * WIDTH, (high - height) / (high - low) * HEIGHT

    raw = [place(step, height) for step, height in zip(steps, heights, strict=True)]
    smoothed = len(raw) >= SMOOTH_FROM
    line = [place(step, h) for step, h in zip(steps, smooth(heights), strict=True)] if smoothed else raw
    area = f"{_path(line)}L{line[-1][0]:.1f} {HEIGHT:.0f}L{line[0][0]:.1f} {HEIGHT:.0f}Z"
    ticks = (logarithmic_ticks(10**low, 10**high) if logarithmic else linear_ticks(low, high)) if axes else []
    rows = [((high - scale(tick)) / (high - low), tick) for tick in ticks]
    said = (
        f"{label}: {number(points[0][1])} at step {points[0][0]:,}, {number(points[-1][1])} at step {points[-1][0]:,}"
    )
    drawing = tag(
        "svg",
        [tag("line", x1=0, x2=WIDTH, y1=f"{y * HEIGHT:.1f}", y2=f"{y * HEIGHT:.1f}", class_="rule") for y, _ in rows],
        tag("path", d=area, class_="area") if len(line) > 1 else None,
        tag("path", d=_path(raw), class_="raw") if smoothed else None,
        tag("path", d=_path(line if len(line) > 1 else [(0, line[0][1]), (WIDTH, line[0][1])]), class_="line"),
        viewBox=f"0 0 {WIDTH:.0f} {HEIGHT:.0f}",
        preserveAspectRatio="none",
        role="img",
        aria_label=said,
    )
    if not axes:
        return tag("div", drawing, class_="spark")
    return tag(
        "div",
        tag("div", drawing, class_="plot"),
        [tag("span", brief(tick), class_="tick y", style=f"top:{100 * y:.2f}%") for y, tick in rows],
        [
            tag("span", f"{int(step):,}", class_="tick x", style=f"left:{100 * (step - first) / span:.2f}%")
            for step in linear_ticks(first, last)
            if step == int(step)
        ],
        class_="chart",
    )
