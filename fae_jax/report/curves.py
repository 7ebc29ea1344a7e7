"""Curves without a plotting library: where line, area and lettering lie; the template draws them.

The line is SVG that stretches, the lettering HTML that does not. A curve of many points is drawn as the mean of its
neighbours, with the points themselves faint behind it. The vertical axis is logarithmic where the values are positive
and span more than a factor of twenty.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chart:
    """A curve over steps, ready to be drawn in a box of `WIDTH` × `HEIGHT`.

    Attributes:
      words: what it shows, for those who do not see it.
      line, area, raw: path data; `raw` only where `line` is smoothed, `area` only from two points on.
      rows, columns: (percent from the top or from the left, lettering) of the ticks.
      first, last: values at the ends.
    """

    words: str
    line: str
    area: str
    raw: str
    rows: list[tuple[float, str]]
    columns: list[tuple[float, str]]
    first: Number
    last: Number


def _path(points: Points) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def chart(points: Points, label: str) -> Chart:
    """The curve through (step, value) points, at least one."""
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

    def placed(curve: Sequence[Number]) -> list[tuple[float, float]]:
        return [
            ((step - first) / span * WIDTH, (high - height) / (high - low) * HEIGHT)
            for step, height in zip(steps, curve, strict=True)
        ]

    smoothed = len(kept) >= SMOOTH_FROM
    line = placed(smooth(heights) if smoothed else heights)
    ticks = logarithmic_ticks(10**low, 10**high) if logarithmic else linear_ticks(low, high)
    (begin, before), (end, after) = points[0], points[-1]
    return Chart(
        words=f"{label}: {number(before)} at step {begin:,}, {number(after)} at step {end:,}",
        line=_path(line if len(line) > 1 else [(0.0, line[0][1]), (WIDTH, line[0][1])]),
        area=f"{_path(line)}L{line[-1][0]:.1f} {HEIGHT:.0f}L{line[0][0]:.1f} {HEIGHT:.0f}Z" if len(line) > 1 else "",
        raw=_path(placed(heights)) if smoothed else "",
        rows=[(100 * (high - scale(tick)) / (high - low), brief(tick)) for tick in ticks],
        columns=[
            (100 * (step - first) / span, f"{int(step):,}") for step in linear_ticks(first, last) if step == int(step)
        ],
        first=before,
        last=after,
    )
