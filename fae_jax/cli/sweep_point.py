"""One point of a sweep, in this process: what it shares is linked in, then its stages and evaluations run."""

from __future__ import annotations

from typing import Any

import jax

from fae_jax.cli.opening import holding
from fae_jax.config import with_values
from fae_jax.errors import RunFailed, Stopped
from fae_jax.evaluation.tasks import prepare
from fae_jax.files.progress import say
from fae_jax.parallel.hosts import is_first, wait_for_all
from fae_jax.parallel.startup import join_hosts
from fae_jax.report import write_report
from fae_jax.stages import stage_of
from fae_jax.stages.experiment import Experiment
from fae_jax.stages.running import run_stage
from fae_jax.sweeps.declaration import halving_metric
from fae_jax.sweeps.directory import SHARED, PlacedPoint, SweepDirectory, conclude, is_concluded, outcome
from fae_jax.sweeps.halving import behind
from fae_jax.sweeps.sharing import hand_on


def run_shared(directory: SweepDirectory) -> dict[str, Any]:
    """Trains the stages that all points have in common."""
    join_hosts()
    workdir = directory.shared_workdir
    if not directory.shared:
        raise ValueError(f"the points of {directory.root} share no stage; give --point a number")
    if not is_concluded(workdir):
        workdir.check_config(directory.config)
        with holding(Experiment(directory.config, workdir)) as experiment:
            for stage in directory.shared:
                run_stage(experiment, stage)
            if is_first():
                conclude(workdir, "done")
    return {"workdir": str(workdir.root), "outcome": "done"}


def _train(experiment: Experiment, directory: SweepDirectory, rung: int) -> bool:
    """Runs the stages; with a rung, only up to that decision. Returns whether all are done."""
    if not rung:
        for stage in directory.stages:
            run_stage(experiment, stage)
        return True
    assert directory.sweep.stop is not None
    until, _ = halving_metric(directory.sweep)
    step = directory.sweep.stop.steps[rung - 1]
    for stage in directory.stages[: directory.stages.index(until)]:
        run_stage(experiment, stage)
    if any(saved >= step for saved in experiment.checkpoints(stage_of(until)).steps()):
        return False
    paused = with_values(experiment.config, {"checkpoint.pause_at": step})
    try:
        run_stage(Experiment(paused, experiment.workdir), until)
    except Stopped:
        if not any(saved >= step for saved in experiment.checkpoints(stage_of(until)).steps()):
            raise
    return False


def _evaluate(experiment: Experiment, tasks: tuple[str, ...]) -> None:
    missing = [task for task in tasks if not (experiment.workdir.evaluation / f"{task}.json").is_file()]
    if missing:
        prepare(experiment, missing)()
    if is_first():
        write_report(experiment.workdir.root)


def run_point(directory: SweepDirectory, point: PlacedPoint, rung: int = 0) -> dict[str, Any]:
    """Runs a point to its end, or to decision number `rung` of early stopping; finished, it returns at once.

    Raises:
      ValueError: the shared stages are missing, a decision cannot be made yet, or the point cannot run.
      RunFailed: it failed while running, or was stopped by a signal; the same command continues.
    """
    join_hosts()
    workdir = point.workdir
    known = {"point": point.number, "workdir": str(workdir.root)}
    if is_concluded(workdir):
        return {**known, **outcome(workdir)}
    rungs = len(directory.sweep.stop.steps) if directory.sweep.stop else 0
    if not 0 <= rung <= rungs:
        raise ValueError(f"--rung {rung} must be between 1 and {rungs}, the number of decisions of this sweep")
    lost = behind(directory, point.number, rung - 1 if rung else rungs)
    if lost:
        if is_first():
            conclude(workdir, "behind", **lost)
        return {**known, "outcome": "behind", **lost}
    if directory.shared and not is_concluded(directory.shared_workdir):
        raise ValueError(
            f"the stages that points share are not finished; run `{directory.command} --point {SHARED}` first"
        )
    workdir.check_config(point.config)
    with holding(Experiment(point.config, workdir)) as experiment:
        if is_first():
            (workdir.root / "outcome.json").unlink(missing_ok=True)
            for stage in directory.shared:
                hand_on(stage, directory.shared_workdir, workdir)
        wait_for_all("shared stages handed on")
        try:
            if not _train(experiment, directory, rung):
                return {**known, "outcome": "", "rung": rung}
            if jax.process_count() > 1 and directory.sweep.tasks:
                here = f"{directory.command} --point {point.number}"
                say(f"sweep: trained; evaluated by one host: `{here}`")
                return {**known, "outcome": ""}
            _evaluate(experiment, directory.sweep.tasks)
        except RunFailed as error:
            if is_first():
                conclude(workdir, "failed", reason=str(error))
            raise
        if is_first():
            conclude(workdir, "done")
    return {**known, "outcome": "done"}
