"""Sweeps: many experiments that differ in a few fields, their table and plots.

fae sweep --config C --sweep F --launcher local|slurm|tpu|gke [--dry_run]   begin, or go on
fae sweep --workdir S                                                        go on with a sweep that was begun
fae sweep --workdir S --table [--metric M]                                   table and plots of what there is
fae sweep --workdir S --point 3                                              one point, here

--sweep is a file like those in configs/sweeps/, or a name of one of them. Finished points are passed over,
interrupted ones go on. `--launch NAME=VALUE` gives a launcher its settings (docs/launching.md).
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fae_jax.cli.sweep_point import run_point, run_shared
from fae_jax.config import load_config, settle
from fae_jax.errors import RunFailed, Stopped
from fae_jax.files.paths import absolute, as_path, is_remote
from fae_jax.files.progress import say, tell
from fae_jax.launchers import LAUNCHERS, check_program
from fae_jax.launchers.plan import Phase, Task, parse_settings
from fae_jax.stages import stage_of
from fae_jax.stages.experiment import Experiment
from fae_jax.sweeps.declaration import check_sweep, load_sweep
from fae_jax.sweeps.directory import SHARED, PlacedPoint, SweepDirectory, is_concluded
from fae_jax.sweeps.plots import write_plots
from fae_jax.sweeps.sharing import differing, hand_on
from fae_jax.sweeps.table import make_rows, write_table
from fae_jax.workdir import Workdir


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="C", help="configuration file or name that the points start from")
    parser.add_argument("--sweep", metavar="F", help="file or name of the sweep: what differs between points")
    parser.add_argument("--workdir", metavar="S", help="directory of the sweep; default: runs/sweeps/CONFIG-SWEEP")
    parser.add_argument(
        "--launcher", choices=list(LAUNCHERS), default="local", metavar="launcher", help=", ".join(LAUNCHERS)
    )
    parser.add_argument(
        "--launch", action="append", default=[], metavar="NAME=VALUE", help="a setting of the launcher; repeatable"
    )
    parser.add_argument("--dry_run", action="store_true", help="print exactly what would run, and touch nothing")
    parser.add_argument("--points", default="", metavar="N,N-N", help="only these points")
    parser.add_argument(
        "--from", dest="source", metavar="W", help="a working directory whose finished stages points may start from"
    )
    parser.add_argument("--table", action="store_true", help="only the table and plots of what there is")
    parser.add_argument("--metric", metavar="M,…", help="for the table: other metrics than the sweep's")
    parser.add_argument("--point", metavar="N", help=f"run one point in this process, or {SHARED}")
    parser.add_argument("--rung", type=int, default=0, help="with --point: only to this decision of early stopping")
    parser.epilog = "--config.section.field=value overrides a field of the configuration"


def open_directory(arguments: argparse.Namespace) -> SweepDirectory:
    """The sweep that the arguments describe, checked; changes nothing.

    Raises:
      ValueError, FileNotFoundError: see `check_sweep`, `SweepDirectory.open` and `SweepDirectory.check`.
    """
    if bool(arguments.config) != bool(arguments.sweep) or not (arguments.config or arguments.workdir):
        raise ValueError("a new sweep needs both --config and --sweep; one that was begun needs only --workdir")
    if not arguments.config:
        if arguments.overrides:
            raise ValueError("--config.section.field=value needs --config and --sweep beside it")
        return SweepDirectory.open(as_path(arguments.workdir))
    config = settle(load_config(arguments.config), arguments.overrides)
    sweep = load_sweep(arguments.sweep)
    check_sweep(sweep, config)
    names = (config.name or Path(arguments.config).stem, Path(arguments.sweep).stem)
    root = as_path(arguments.workdir or Path("runs") / "sweeps" / "-".join(names))
    directory = SweepDirectory(root=root, sweep=sweep, config=config)
    directory.check()
    return directory


def _check_source(directory: SweepDirectory, source: Workdir) -> list[str]:
    """The stages that points may start with from another working directory.

    Raises:
      ValueError: it has none of those that points share, or of another experiment.
    """
    config = source.read_config()
    theirs = Experiment(config, source)
    finished = [stage for stage in directory.shared if theirs.is_done(stage_of(stage))]
    for stage in finished:
        different = differing(stage, directory.config, config)
        if different:
            raise ValueError(f"stage {stage} of {source.root} is of another experiment ({'; '.join(different[:6])})")
    if not finished:
        shared = ", ".join(directory.shared) or "none"
        raise ValueError(f"{source.root} has finished none of the stages that the points share ({shared})")
    return finished


def _table(directory: SweepDirectory, metrics: str | None) -> dict[str, Any]:
    chosen = tuple(metrics.split(",")) if metrics else directory.sweep.metrics
    rows = make_rows(directory, chosen)
    text = write_table(directory, rows, chosen)
    plots = write_plots(directory, rows, chosen, text)
    tell(text, end="")
    say(f"sweep: {directory.root / 'index.html'}")
    best = next((row.point.name for row in rows if row.place == 1), None)
    return {"sweep": str(directory.root), "best": best, "plots": plots}


def _phases(directory: SweepDirectory, points: Sequence[PlacedPoint], *, table: bool) -> list[Phase]:
    """What is left to run, as `fae sweep --point …`: what all points share, then the points, rung by rung where some
    are stopped early; with `table`, the table of it at the end."""
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
        phases.append(Phase(name="table", tasks=(Task(name="table", words=(*begin, "--table")),), alone=True))
    return phases


def _launch(arguments: argparse.Namespace, directory: SweepDirectory) -> dict[str, Any]:
    launcher = LAUNCHERS[arguments.launcher]
    settings = parse_settings(launcher.Settings, arguments.launcher, arguments.launch)
    phases = _phases(directory, directory.selected(arguments.points), table=not launcher.WAITS)
    name = absolute(directory.root).name
    unique = f"{name}-{hashlib.sha256(str(absolute(directory.root)).encode()).hexdigest()[:6]}"  # as clouds need it
    # Logs are of this machine: those of a sweep in a bucket lie where a sweep without --workdir would.
    folder = (Path("runs", "sweeps", name) if is_remote(directory.root) else directory.root).absolute() / "launch"
    source = Workdir(arguments.source) if arguments.source else None
    handed = _check_source(directory, source) if source else []
    if arguments.dry_run:
        shared = ", ".join(directory.shared) or "nothing"
        lines = [f"{len(directory.points)} points in {directory.root}; trained once for all: {shared}"]
        lines += [f"point {point.number}: {point.name}" for point in directory.points]
        tell("\n".join(f"# {' '.join(line.split())}" for line in lines))
        tell(launcher.describe(phases, settings, unique, folder) if phases else "# nothing is left to run")
        return {"sweep": str(directory.root), "points": len(directory.points), "phases": len(phases)}
    check_program(arguments.launcher, settings)
    directory.begin()
    for stage in handed:
        assert source is not None
        hand_on(stage, source, directory.shared_workdir)
    if phases:
        try:
            jobs = launcher.launch(phases, settings, unique, folder)
        except (RunFailed, Stopped):
            if any(point.workdir.root.exists() for point in directory.points):
                _table(directory, arguments.metric)
            raise
        if not launcher.WAITS:
            return {"sweep": str(directory.root), "jobs": jobs}
    try:
        return _table(directory, arguments.metric)
    except ValueError as error:
        raise RunFailed(f"{error}; `{directory.command} --table --metric …`") from error


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    directory = open_directory(arguments)
    if arguments.point is not None:
        if arguments.point == SHARED:
            return run_shared(directory)
        return run_point(directory, directory.point(arguments.point), arguments.rung)
    if arguments.table:
        return _table(directory, arguments.metric)
    return _launch(arguments, directory)
