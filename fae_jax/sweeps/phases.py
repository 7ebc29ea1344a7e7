"""A sweep as commands: first what all points share, then the points, rung by rung where some are stopped early."""

from __future__ import annotations

from collections.abc import Sequence

from fae_jax.files.paths import absolute
from fae_jax.launchers import Phase, Task
from fae_jax.sweeps.directory import SHARED, PlacedPoint, SweepDirectory, is_concluded


def make_phases(directory: SweepDirectory, points: Sequence[PlacedPoint], *, table: bool) -> list[Phase]:
    """What is left to run, as `fae sweep --point …`; with `table`, the table of it at the end."""
    begin = ("sweep", "--workdir", str(absolute(directory.root)))
    waiting = [point for point in points if not is_concluded(point.workdir)]
    phases = []
    if waiting and directory.shared and not is_concluded(directory.shared_workdir):
        phases.append(Phase(name=SHARED, tasks=(Task(name=SHARED, words=(*begin, "--point", SHARED)),)))
    rungs = range(1, len(directory.sweep.stop.steps) + 1) if directory.sweep.stop else ()
    for rung in (*rungs, 0) if waiting else ():
        more = ("--rung", str(rung)) if rung else ()
        suffix = f"-rung-{rung}" if rung else ""
        tasks = [
            Task(name=f"point-{point.number}{suffix}", words=(*begin, "--point", str(point.number), *more))
            for point in waiting
        ]
        phases.append(Phase(name=f"points{suffix}", tasks=tuple(tasks)))
    if table:
        phases.append(Phase(name="table", tasks=(Task(name="table", words=(*begin, "--table")),)))
    return phases
