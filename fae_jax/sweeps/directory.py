"""The directory of a sweep.

sweep.json            what was declared, and the configuration it starts from
shared/               a working directory with the stages that all points have in common
points/NAME/          a working directory per point; outcome.json once it is done, behind or failed
table.txt .csv .json  index.html  plots/*.svg
launch/               what was handed to a launcher; logs/
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
import shlex
from collections.abc import Callable
from typing import Any

from fae_jax.config import check, flatten, from_json, is_operational, to_json, with_values
from fae_jax.files.paths import Path
from fae_jax.files.writing import read_json, write_json
from fae_jax.sweeps.declaration import Sweep, as_json, from_declared, needed_stages
from fae_jax.sweeps.sharing import shared_stages
from fae_jax.workdir import Workdir

SHARED = "shared"  # stands for the stages in common where a point's name could stand
NAME_LENGTH = 80
# May not change between two launches, unlike other operational fields
SCORED = ("sampling.", "evaluation.", "data.heldout_path")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlacedPoint:
    """A point and its working directory."""

    number: int
    name: str
    values: dict[str, Any]
    config: Any
    workdir: Workdir


def outcome(workdir: Workdir) -> dict[str, Any]:
    """{"outcome": done, behind or failed, …}, or {"outcome": ""} before there is one."""
    file = workdir.root / "outcome.json"
    return read_json(file, "remove it, and the same command continues") if file.is_file() else {"outcome": ""}


def conclude(workdir: Workdir, what: str, **more: Any) -> None:
    """Writes the outcome."""
    write_json(workdir.root / "outcome.json", {"outcome": what, **more})


def is_concluded(workdir: Workdir) -> bool:
    """Whether nothing is left to do there."""
    return outcome(workdir)["outcome"] in ("done", "behind")


def short_values(points: tuple[dict[str, Any], ...]) -> list[dict[str, str]]:
    """Each point's values in as few words as tell them apart: {short field name: text}.

    A field goes by its last word where that is unambiguous. Of nested sequences that differ in one number only, such
    as guidance intervals with another weight, that number is shown.
    """
    fields = list(dict.fromkeys(name for point in points for name in point))
    lasts = [name.split(".")[-1] for name in fields]
    short = {name: last if lasts.count(last) == 1 else name for name, last in zip(fields, lasts, strict=True)}
    texts: dict[str, Callable[[Any], str]] = {
        name: _teller([p[name] for p in points if name in p]) for name in fields
    }
    return [{short[name]: texts[name](value) for name, value in point.items()} for point in points]


def _teller(values: list[Any]) -> Callable[[Any], str]:
    numbers = dict(zip(map(_key, values), as_numbers(values) or (), strict=False))

    def text(value: Any) -> str:
        number = numbers.get(_key(value))
        return str(value) if number is None else f"{number:g}"

    return text


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def as_numbers(values: list[Any]) -> list[float] | None:
    """Values as numbers to plot against, or None: numbers themselves, or the one in which nested sequences differ."""
    leaves = [flatten_sequence(value) for value in values]
    if len({len(row) for row in leaves}) != 1:
        return None
    columns = list(zip(*leaves, strict=True))
    changing = [column for column in columns if len(set(column)) > 1] or columns[:1]
    if len(changing) != 1 or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in changing[0]):
        return None
    return [float(value) for value in changing[0]]


def flatten_sequence(value: Any) -> list[Any]:
    """The leaves of nested lists and tuples, in order."""
    return [leaf for item in value for leaf in flatten_sequence(item)] if isinstance(value, list | tuple) else [value]


def point_names(points: tuple[dict[str, Any], ...]) -> list[str]:
    """Folder names: the values, readable, and a hash of them, so that no two are alike."""
    names = []
    for point, short in zip(points, short_values(points), strict=True):
        words = re.sub(r"[^\w=.,+-]+", "_", ",".join(f"{name}={text}" for name, text in short.items()))
        digest = hashlib.sha256(_key(sorted(point.items())).encode()).hexdigest()[:8]
        names.append(f"{words[:NAME_LENGTH]}-{digest}")
    return names


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepDirectory:
    """A sweep, the configuration it starts from, and where it is kept."""

    root: Path
    sweep: Sweep
    config: Any

    @property
    def command(self) -> str:
        """How a command for it begins, in a shell."""
        return f"fae sweep --workdir {shlex.quote(str(self.root))}"

    @classmethod
    def open(cls, root: Path) -> SweepDirectory:
        """A directory that was begun before.

        Raises:
          FileNotFoundError: it is no sweep directory.
          ValueError: it cannot be read.
        """
        file = root / "sweep.json"
        if not file.is_file():
            raise FileNotFoundError(
                f"{root} is not a sweep directory: it has no sweep.json; begin one with "
                f"`fae sweep --config CONFIG --sweep SWEEP --workdir {shlex.quote(str(root))}`"
            )
        try:
            content = json.loads(file.read_text())
            config = from_json(json.dumps(content["config"]))
            return cls(root=root, sweep=from_declared(content["sweep"], file), config=config)
        except (KeyError, json.JSONDecodeError) as error:
            raise ValueError(f"{file} cannot be read: {error!r}") from error

    @functools.cached_property
    def points(self) -> list[PlacedPoint]:
        """In their order."""
        declared = self.sweep.points
        return [
            PlacedPoint(
                number=number,
                name=name,
                values=values,
                config=check(with_values(self.config, values)),
                workdir=Workdir(self.root / "points" / name),
            )
            for number, (name, values) in enumerate(zip(point_names(declared), declared, strict=True))
        ]

    @functools.cached_property
    def stages(self) -> tuple[str, ...]:
        """Stages each point must have."""
        return needed_stages(self.sweep, self.config)

    @functools.cached_property
    def shared(self) -> tuple[str, ...]:
        """Those of them that all points have in common."""
        return shared_stages(self.stages, {name for point in self.sweep.points for name in point})

    @property
    def shared_workdir(self) -> Workdir:
        return Workdir(self.root / SHARED)

    def point(self, word: str) -> PlacedPoint:
        """A point by its number or name.

        Raises:
          ValueError: there is no such point.
        """
        for point in self.points:
            if word in (point.name, str(point.number)):
                return point
        raise ValueError(f"point {word!r} is not in {self.root}; points are 0 to {len(self.points) - 1}, or {SHARED}")

    def selected(self, words: str) -> list[PlacedPoint]:
        """Points by a list of numbers and ranges, as 0,2-3; empty: all.

        Raises:
          ValueError: it is no such list, or names a point that is not there.
        """
        if not words:
            return self.points
        chosen: set[int] = set()
        for word in words.split(","):
            match = re.fullmatch(r"(\d+)(?:-(\d+))?", word.strip())
            if match is None:
                raise ValueError(f"--points {words!r} must be numbers and ranges of points, as 0,2-3")
            first, last = self.point(match[1]), self.point(match[2] or match[1])
            chosen.update(range(first.number, last.number + 1))
        return [self.points[number] for number in sorted(chosen)]

    def check(self) -> None:
        """Refuses a directory of another sweep, or of something else; changes nothing.

        Raises:
          ValueError: it is one; what differs is listed.
        """
        if self.root.is_file():
            raise ValueError(f"sweep directory {self.root} is a file; name a directory")
        if (self.root / "config.json").is_file():
            raise ValueError(f"{self.root} is the working directory of an experiment; give the sweep a --workdir")
        if not (self.root / "sweep.json").is_file():
            return
        different = self._differences(SweepDirectory.open(self.root))
        if different:
            listed = "; ".join(different[:6]) + (f"; and {len(different) - 6} more" if len(different) > 6 else "")
            raise ValueError(
                f"directory {self.root} is of another sweep ({listed}); choose another --workdir or leave those as "
                "they were"
            )

    def _differences(self, theirs: SweepDirectory) -> list[str]:
        mine, other = flatten(self.config, every=False), flatten(theirs.config, every=False)
        fields = [
            f"{name}: {other.get(name)!r} → {value!r}"
            for name, value in mine.items()
            if other.get(name) != value and (name.startswith(SCORED) or not is_operational(name))
        ]
        ours, had = point_names(self.sweep.points), point_names(theirs.sweep.points)
        points = [f"new point {name}" for name in ours if name not in had]
        points += [f"no point {name}" for name in had if name not in ours]
        if not points and ours != had:
            points = ["points in another order"]
        # What is compared and plotted may change at any time; what is run may not.
        run = ("stages", "tasks", "stop") if self.sweep.stop or theirs.sweep.stop else ("stages", "tasks")
        settings = [
            f"{name}: {getattr(theirs.sweep, name)!r} → {getattr(self.sweep, name)!r}"
            for name in (*run, *(("metric", "better") if self.sweep.stop else ()))
            if getattr(theirs.sweep, name) != getattr(self.sweep, name)
        ]
        return fields + points + settings

    def begin(self) -> None:
        """Writes `sweep.json`."""
        content = {"sweep": as_json(self.sweep), "config": json.loads(to_json(self.config, every=True))}
        write_json(self.root / "sweep.json", content)
