"""The points of a sweep: an ordered set of {field: value}, built from a few functions that nest.

grid({"a": (1, 2), "b": (3, 4)})              a × b: four points, the last field changes fastest
zipped({"a": (1, 2), "b": (3, 4)})            side by side: two points
listed({"a": 1}, {"a": 2, "b": 5})            just these; a field left out keeps the configuration's value
random(8, {"a": log_uniform(1e-4, 1e-2)})     eight drawn points, the same at every call
product(zipped(…), grid(…))                   every point of one with every point of the other
grid(…) + listed(…)                           one after the other
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Number = int | float
Point = dict[str, Any]
Points = tuple[Point, ...]
Draw = Callable[[np.random.Generator], Any]


def _axes(fields: Mapping[str, Sequence[Any]]) -> list[list[Any]]:
    if not fields:
        raise ValueError("an axis needs at least one field, as in {'features.beta': (1e-4, 1e-3)}")
    for name, values in fields.items():
        if isinstance(values, str) or not isinstance(values, Sequence | np.ndarray) or not len(values):
            raise ValueError(f"field {name} needs a sequence of values to sweep over, got {values!r}")
    return [list(values) for values in fields.values()]


def grid(fields: Mapping[str, Sequence[Any]]) -> Points:
    """Every combination of the fields' values.

    Raises:
      ValueError: there is no field, or a field without values.
    """
    return tuple(dict(zip(fields, values, strict=True)) for values in itertools.product(*_axes(fields)))


def zipped(fields: Mapping[str, Sequence[Any]]) -> Points:
    """The first values of all fields, then the second values, and so on.

    Raises:
      ValueError: there is no field, or their values are not equally many.
    """
    axes = _axes(fields)
    if len({len(axis) for axis in axes}) > 1:
        counts = ", ".join(f"{name} has {len(values)}" for name, values in fields.items())
        raise ValueError(f"zipped fields need equally many values: {counts}")
    return tuple(dict(zip(fields, values, strict=True)) for values in zip(*axes, strict=True))


def listed(*points: Mapping[str, Any]) -> Points:
    """These points."""
    return tuple(dict(point) for point in points)


def product(*parts: Points) -> Points:
    """Every point of the first part with every point of the second, and so on.

    Raises:
      ValueError: a field is in two parts.
    """
    combined = []
    for group in itertools.product(*parts):
        merged: Point = {}
        for point in group:
            twice = merged.keys() & point.keys()
            if twice:
                raise ValueError(f"field {min(twice)} is in two parts of a product")
            merged.update(point)
        combined.append(merged)
    return tuple(combined)


def _check_range(low: Number, high: Number, least: Number = -math.inf) -> None:
    if not least < low < high:
        raise ValueError(f"a range runs from a low to a high number (above 0 if logarithmic), got {low} to {high}")


def uniform(low: Number, high: Number) -> Draw:
    """Numbers drawn evenly from [low, high)."""
    _check_range(low, high)
    return lambda generator: float(generator.uniform(low, high))


def log_uniform(low: Number, high: Number) -> Draw:
    """Numbers whose logarithm is drawn evenly."""
    _check_range(low, high, least=0)
    return lambda generator: math.exp(generator.uniform(math.log(low), math.log(high)))


def whole(low: int, high: int) -> Draw:
    """Whole numbers from `low` to `high`, both included."""
    _check_range(low, high)
    return lambda generator: int(generator.integers(low, high, endpoint=True))


def random(count: int, fields: Mapping[str, Draw | Sequence[Any]], *, seed: int = 0) -> Points:
    """`count` points, each field drawn from its range or from its values; a function of (seed, point, field) alone.

    So a longer sweep begins with the points of a shorter one, and a field added leaves the others as they were.

    Raises:
      ValueError: there are no fields, or fewer than one point.
    """
    if count < 1 or not fields:
        raise ValueError(f"random needs at least one point and one field, got {count} points, {len(fields)} fields")

    def draw(place: int, name: str, choice: Draw | Sequence[Any]) -> Any:
        generator = np.random.default_rng([seed, place, *name.encode()])
        if callable(choice):
            return choice(generator)
        values = _axes({name: choice})[0]
        return values[int(generator.integers(len(values)))]

    return tuple({name: draw(place, name, choice) for name, choice in fields.items()} for place in range(count))
