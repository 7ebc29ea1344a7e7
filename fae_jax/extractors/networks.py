"""Weights of frozen networks that are published as files: where they are, how they lie there, and our nested dict.

What was brought is kept in the names and layouts of the published file, without what the network does not need.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fae_jax.weights import Tensors, flatten, mapping, unflatten
from fae_jax.weights.mapping import NameMap
from fae_jax.weights.releases import Release, read_arrays
from fae_jax.weights.tensors import Tensor


class _Arrays(Tensors):
    """Arrays in memory, read as those of a file."""

    def __init__(self, arrays: Mapping[str, np.ndarray]):
        super().__init__(
            {
                name: Tensor(path=Path(), shape=array.shape, dtype=array.dtype, offset=0)
                for name, array in arrays.items()
            }
        )
        self._arrays = arrays

    def read(self, name: str) -> np.ndarray:
        return self._arrays[name]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """A frozen network's weights.

    Attributes:
      name: what `fae weights pull` calls it.
      releases: its files, which together hold all of it: what their tensors' names begin with → the file.
      names: how the tensors lie there; `ignored` are those that the network does not need.
      shapes: a nested dict of `jax.ShapeDtypeStruct`s.
    """

    name: str
    releases: Mapping[str, Release]
    names: NameMap
    shapes: Any

    @property
    def source(self) -> str:
        """Where it is published."""
        return " and ".join(release.urls[0] for release in self.releases.values())

    def check(self, weights: str = "") -> None:
        """Raises FileNotFoundError where the weights are not there, with the command that brings them."""
        if weights and not Path(weights).exists():
            raise FileNotFoundError(f"the weights {weights!r} of {self.name!r} are not there")
        for release in () if weights else self.releases.values():
            release.folder(self.name)

    def load(self, weights: str = "") -> dict[str, Any]:
        """The parameters.

        Args:
          weights: a file or folder that holds all of them; "" for what `fae weights pull` brought.

        Raises:
          FileNotFoundError: see `check`.
          ValueError: they are another network's, or damaged.
        """
        self.check(weights)
        places = [Path(weights)] if weights else [release.folder(self.name) for release in self.releases.values()]
        held = {name: array for place in places for name, array in read_arrays(place).items()}
        return mapping.load(weights or self.name, self.names, _Arrays(held), self.shapes)

    def pull(self, file: Path | None = None) -> tuple[Path, int]:
        """Brings all releases, or keeps what `file` holds of them: the last one's folder, and bytes fetched just now.

        Raises:
          ValueError: the file holds nothing of this network, or a tensor of another shape.
        """
        if file is None:
            folders, fetched = zip(*(release.pull(self._needed) for release in self.releases.values()), strict=True)
            return folders[-1], sum(fetched)
        held, kept = flatten(self._needed(file)), []
        for beginning, release in self.releases.items():
            share = unflatten({name: array for name, array in held.items() if name.startswith(beginning)})
            if share:
                kept.append(release.pull(lambda _, share=share: share, file))
        return kept[-1]

    def _expected(self) -> dict[str, tuple[int, ...]]:
        shapes = {name: tuple(leaf.shape) for name, leaf in flatten(self.shapes).items()}
        return mapping.expected(self.names, shapes, Tensors({}))

    def _needed(self, file: Path) -> dict[str, Any]:
        """What a file holds of this network, in its own names."""
        expected, tensors = self._expected(), read_arrays(file)
        held = {name: array for name, array in tensors.items() if name in expected}
        wrong = [name for name, array in held.items() if array.shape != expected[name]]
        if wrong or not held:
            what = (
                f"{wrong[0]} is {list(held[wrong[0]].shape)} instead of {list(expected[wrong[0]])}" if wrong else ""
            )
            first = next(iter(expected))
            raise ValueError(f"{file} holds no weights of {self.name!r}: {what or f'it has no {first}'}")
        return unflatten(held)
