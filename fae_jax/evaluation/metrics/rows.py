"""Feature vectors kept of a stream, and distances between two sets of them.

Scores of neighbours and of samples' order need the vectors themselves. Of a stream of more than `LIMIT` they are a
uniform choice of `LIMIT`, which depends on positions in the stream alone: each position i has the priority

    h(i) = the mixing function of SplitMix64 at i (Steele, Lea and Flood 2014, doi 10.1145/2714064.2660195)

and the lowest `LIMIT` stay. So what is kept does not depend on batches, nor on the number of parts a stream comes in,
and parts are merged exactly. At most 50,000 · 2,048 float32 numbers, 410 MB, for each tap: metrics that keep the same
tap of a stream hold the same arrays while nothing is left out.

Squared distances are |a|² − 2ab + |b|² in float64, a block at a time. Below 1e-13 of |a|² + |b|² they may be rounding
errors, and count as 0.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt64

from fae_jax.evaluation.metrics import Batch, compared_with
from fae_jax.section import option

LIMIT = 50_000  # vectors kept of a stream
JOINED = 4096  # vectors of several batches become one array: many small ones among others leave holes in memory
BLOCK = 2048  # rows of each set in a block of distances
EQUAL = 1e-13


def priority(index: Int[np.ndarray, " k"]) -> UInt64[np.ndarray, " k"]:
    """h of the module."""
    z = (index.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


class Rows:
    """The rows of one tap kept of a stream; see the module."""

    def __init__(self, name: str) -> None:
        self.name = name  # the tap
        self.seen = 0
        self._parts: list[tuple[np.ndarray, np.ndarray]] = []  # positions, rows
        self._joined = 0  # the first so many parts are large
        self._held = 0
        self._bound: Any = None  # the highest priority that stays, once some were left out
        self._order: tuple[np.ndarray, np.ndarray] | None = None  # where each part begins, and all rows by position

    def update(self, batch: Batch) -> None:
        """Takes in the rows of a batch that are `among`.

        Raises:
          ValueError: as `Batch.tap`, or they are of another width than those before.
        """
        rows = batch.kept(self.name)
        index = self.seen + np.arange(len(batch.images)) if batch.index is None else batch.index
        self.seen += len(batch.images)
        self._add(index if batch.among is None else index[batch.among], rows)
        loose = self._parts[self._joined :]
        if sum(len(index) for index, _ in loose) >= JOINED:
            index = np.concatenate([index for index, _ in loose])
            self._parts[self._joined :] = [(index, batch.joined([rows for _, rows in loose]))]
            self._joined += 1

    def merge(self, other: Rows) -> None:
        """Takes in what another one has kept."""
        self.seen += other.seen
        for index, rows in other._parts:
            self._add(index, rows)

    def _add(self, index: np.ndarray, rows: np.ndarray) -> None:
        if self._parts and self._parts[0][1].shape[1] != rows.shape[1]:
            raise ValueError(f"features {self._parts[0][1].shape[1]} and {rows.shape[1]} wide cannot be compared")
        self._order = None
        if self._bound is not None:
            stays = priority(index) <= self._bound
            index, rows = index[stays], rows[stays]
        if len(index):
            self._parts.append((index, rows))
            self._held += len(index)
        if self._held > LIMIT * 9 // 8:
            self._thin()

    def _thin(self) -> None:
        """Leaves the lowest `LIMIT`; done now and then, so that it costs little."""
        priorities = priority(np.concatenate([index for index, _ in self._parts]))
        self._bound = np.partition(priorities, LIMIT - 1)[LIMIT - 1]
        parts, self._parts, self._held = self._parts, [], 0
        for index, rows in parts:
            self._add(index, rows)
        self._joined = len(self._parts)

    def _settled(self) -> tuple[np.ndarray, np.ndarray]:
        if self._held > LIMIT:
            self._thin()
        if self._order is None:
            index = np.concatenate([index for index, _ in self._parts] or [np.zeros(0, int)])
            if len(np.unique(index)) < len(index):
                raise ValueError("merged parts of a stream must say their positions in it (Batch.index)")
            self._order = np.cumsum([0, *(len(index) for index, _ in self._parts)]), np.argsort(index)
        return self._order

    def __len__(self) -> int:
        return len(self._settled()[1])

    @property
    def width(self) -> int:
        """Of the rows; 0 where there are none."""
        return self._parts[0][1].shape[1] if self._parts else 0

    def take(self, where: Int[np.ndarray, " k"]) -> Float[np.ndarray, "k d"]:
        """Some rows, counted in the order of their positions in the stream, float64.

        Raises:
          ValueError: merged parts had the same positions.
        """
        begins, order = self._settled()
        chosen = order[where]
        part = np.searchsorted(begins, chosen, side="right") - 1
        taken = np.empty((len(chosen), self.width))
        for number in np.unique(part).tolist():
            here = part == number
            taken[here] = self._parts[number][1][chosen[here] - begins[number]]
        return taken

    def blocks(self, size: int = BLOCK) -> Iterator[tuple[slice, Float[np.ndarray, "k d"]]]:
        """All rows in order, a block at a time, and where they are."""
        for start in range(0, len(self), size):
            where = np.arange(start, min(start + size, len(self)))
            yield slice(start, start + len(where)), self.take(where)

    def state(self) -> dict[str, np.ndarray]:
        seen = {"seen": np.asarray(self.seen), "tap": np.array(self.name)}
        if not len(self):
            return seen
        index = np.sort(np.concatenate([index for index, _ in self._parts]))
        rows = self.take(np.arange(len(self))).astype(np.float32)
        return {**seen, "index": index, "rows": rows}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Raises ValueError: it is of another tap."""
        if str(state["tap"]) != self.name:
            raise ValueError(f"features of {state['tap']} were kept, and those of {self.name} are compared")
        Rows.__init__(self, self.name)
        self.seen = int(state["seen"])
        if "rows" in state:
            self._add(state["index"], state["rows"])


def _is_tap(value: Any) -> str | None:
    return None if value and value.count(":") <= 1 else "is EXTRACTOR:TAP, such as dinov2_l14:cls"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TapSection:
    """What rows are of."""

    tap: str = option(
        "inception:pool_3", "EXTRACTOR:TAP whose features are compared; papers' numbers are by the default", _is_tap
    )


class OfRows:
    """A metric that compares the rows of one tap: all but its `result`."""

    higher: tuple[str, ...] = ()
    Section: type | None = TapSection
    tap = TapSection().tap

    def __init__(self, tap: str = "") -> None:
        self._rows = Rows(tap or self.tap)

    @classmethod
    def build(cls, section: TapSection | None, classes: Sequence[str]) -> OfRows:
        return cls(section.tap if section else "")

    def update(self, batch: Batch) -> None:
        self._rows.update(batch)

    def merge(self, other: OfRows) -> None:
        self._rows.merge(other._rows)

    def state(self) -> dict[str, np.ndarray]:
        return self._rows.state()

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        self._rows.restore(state)

    def pair(
        self, real: Mapping[str, Any], metric: str, least: int
    ) -> tuple[dict[str, str], Rows, Rows, dict[str, int]]:
        """{space (the tap), against (train, heldout or reference)}, the rows of both sides, and their counts.

        Raises:
          ValueError: there are fewer than `least` rows on a side, or the two are of different widths.
        """
        against, other = compared_with(real, metric)
        samples, reference = self._rows, other._rows
        counts = {"samples": len(samples), "reference": len(reference)}
        if min(counts.values()) < least:
            told = " and ".join(f"{count} {side}" for side, count in counts.items())
            raise ValueError(f"{metric} needs {least} images or more on both sides, got {told}")
        if samples.width != reference.width:
            raise ValueError(f"features {samples.width} and {reference.width} wide cannot be compared")
        return {"space": samples.name, "against": against}, samples, reference, counts


def squared_distances(first: Float[np.ndarray, "k d"], second: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "k m"]:
    """|a − b|² of every pair, float64; see the module for those near 0."""
    lengths = np.einsum("kd,kd->k", first, first)[:, None] + np.einsum("md,md->m", second, second)
    distances = lengths - 2.0 * (first @ second.T)
    distances[distances < EQUAL * lengths] = 0.0
    return distances
