"""Names of TPU slices: `v5e:4x4` (generation and chips along each side), or Google's `v5e-16`.

A slice's number counts chips on v5e and v6e, and TensorCores, two to a chip, on v4 and v5p: v4-16 is v4:2x2x2.
"""

from __future__ import annotations

import dataclasses
import math
import re

from fae_jax.files.names import nearest

CORES = {"v4": 2, "v5p": 2, "v5e": 1, "v6e": 1}  # what a slice's number counts per chip
_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8")
SHAPES = {"v4": _CUBES, "v5p": _CUBES, "v5e": _FLAT, "v6e": _FLAT}  # from the smallest


@dataclasses.dataclass(frozen=True, kw_only=True)
class Topology:
    """A slice.

    Attributes:
      generation: v4, v5e, v5p or v6e.
      sides: chips along each side.
    """

    generation: str
    sides: tuple[int, ...]

    @property
    def chips(self) -> int:
        return math.prod(self.sides)

    @property
    def name(self) -> str:
        """As the compiler wants it: v5e:4x4."""
        return f"{self.generation}:{'x'.join(map(str, self.sides))}"

    @property
    def slice_name(self) -> str:
        """As Google sells it: v5e-16, v4-16."""
        return f"{self.generation}-{self.chips * CORES[self.generation]}"


def _of(generation: str, shape: str) -> Topology:
    return Topology(generation=generation, sides=tuple(map(int, shape.split("x"))))


def slices(generation: str) -> list[Topology]:
    """The slices of a generation that can be asked for by number, from the smallest."""
    return [_of(generation, shape) for shape in SHAPES[generation]]


def parse_topology(name: str) -> Topology:
    """Reads `v5e:4x4` or `v5e-16`.

    Raises:
      ValueError: there is no such slice; the nearest is named.
    """
    known = {slice.slice_name: slice for generation in SHAPES for slice in slices(generation)}
    word = name.strip().lower()
    if word in known:
        return known[word]
    parts = re.fullmatch(r"(v4|v5p|v5e|v6e)(?:-([1-9]\d*)|:([1-9]\d*(?:x[1-9]\d*)*))", word)
    if not parts:
        hint = nearest(word, [*known, *(slice.name for slice in known.values())], cutoff=0.0)
        raise ValueError(f"topology {name!r} is unknown; {hint} Others are v4-16, v5e:4x4, v5p-16, v6e-8, h100, auto")
    generation, number, shape = parts.groups()
    if shape:
        asked = _of(generation, shape)
        whole = all(side == 1 or side % 2 == 0 for side in asked.sides) and max(asked.sides) <= 32
        if whole and len(asked.sides) == len(slices(generation)[0].sides):
            return asked
    chips = asked.chips if shape else int(number) / CORES[generation]
    near = min(slices(generation), key=lambda slice: abs(math.log(slice.chips / chips)))
    raise ValueError(
        f"topology {name!r} is not a slice; the nearest is {near.slice_name} ({near.name}); "
        "numbers count TensorCores on v4 and v5p, chips on v5e and v6e"
    )
