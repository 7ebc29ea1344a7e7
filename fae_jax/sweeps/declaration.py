"""What a file in `configs/sweeps/` declares, and the checks it passes before anything starts."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from typing import Any

from fae_jax.config import check, shipped_configs, to_json, with_values
from fae_jax.config.composing import tuples
from fae_jax.config.overriding import read_declared
from fae_jax.evaluation.tasks import check_tasks, higher_is_better, task_kind, task_names
from fae_jax.files.names import nearest
from fae_jax.files.paths import Path
from fae_jax.stages import STAGES, stage_of
from fae_jax.stages.running import stages_of
from fae_jax.sweeps.axes import Points

# What says in the name of a stage's metric which way is better; words of both are "lower", as in cosine_loss.
LOWER = {"loss", "error", "kl", "lpips", "mse", "distance", "gap", "perplexity", "seconds"}
HIGHER = {"accuracy", "agreement", "cosine", "explained", "goodput", "psnr", "ssim"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Halving:
    """Early stopping by successive halving (arXiv 1502.07943), decided by the run's own metrics.

    Every point trains to the first of `steps`, there the best `keep` of them go on to the second, and so on; the
    last survivors finish. What a point is compared by is its metric in the row of exactly that step, so who is
    stopped depends neither on the launcher nor on who was faster. Where values are equal, or there is none (the loss
    was not finite, the run failed), earlier points are better, and those with a value before those without.

    Attributes:
      steps: of the metric's stage, ascending; multiples of logging.every.
      keep: share of the points that goes on from each, rounded up; 0.5 stops what is behind the median.
      metric: STAGE.NAME from the stage's metrics; default: the sweep's own.
    """

    steps: tuple[int, ...]
    keep: float = 0.5
    metric: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep:
    """Many experiments that differ in a few fields.

    Attributes:
      points: what differs: see `fae_jax.sweeps.axes`.
      metric: what points are compared by: STAGE.NAME, the last row of STAGE/metrics.jsonl, or TASK.path.to.value in
        evaluation/TASK.json.
      better: lower or higher values of it; empty: by its name.
      also: further metrics for the table and the plots.
      stages: what to train; the stages they need come with them. None: all.
      tasks: of `fae evaluate`, after the stages.
      stop: early stopping, or None.
    """

    points: Points
    metric: str
    better: str = ""
    also: tuple[str, ...] = ()
    stages: tuple[str, ...] | None = None
    tasks: tuple[str, ...] = ()
    stop: Halving | None = None

    @property
    def metrics(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.metric, *self.also)))

    def prefers_lower(self, metric: str) -> bool | None:
        """Whether lower values of a metric are better; None where nothing says."""
        return self.better == "lower" if self.better and metric == self.metric else lower_is_better(metric)


def lower_is_better(metric: str) -> bool | None:
    """Whether lower values are better: a task's score says it itself, a stage's metric by its name, or not at all."""
    if metric.split(".")[0] in task_names():
        return not higher_is_better(metric)
    words = set(re.findall("[a-z]+", metric.lower()))
    return True if words & LOWER else False if words & HIGHER else None


def load_sweep(path: str) -> Sweep:
    """Runs `get_sweep()` of a Python file; a bare name means the file of that name in `configs/sweeps/`.

    Raises:
      FileNotFoundError: there is no such file; those that ship are named.
      ValueError: the file does not define a sweep.
    """

    def read(module: Any) -> Sweep:
        sweep = module.get_sweep()
        if not isinstance(sweep, Sweep):
            raise ValueError(f"get_sweep() must return a Sweep, got {type(sweep).__name__}")
        return sweep

    return read_declared(path, shipped_configs() / "sweeps", "sweep", read)


def needed_stages(sweep: Sweep, config: Any) -> tuple[str, ...]:
    """The stages every point must have, in order: those of the sweep and those they need.

    Raises:
      ValueError: a stage is unknown; the nearest is named.
    """
    stages = stages_of(check(config))
    names = tuple(stage.name for stage in stages)
    chosen = set(names if sweep.stages is None else sweep.stages)
    for name in chosen:
        _check_known("stage", name, STAGES)
    for stage in reversed(stages):  # a stage comes after all it needs
        if stage.name in chosen:
            chosen.update(stage.needs)
    return tuple(name for name in names if name in chosen)


def check_sweep(sweep: Sweep, config: Any) -> list[Any]:
    """Refuses what cannot run; returns the configuration of each point.

    Raises:
      ValueError: no points, two alike, a field or value that does not exist or fit, a stage, task or metric that
        nothing of the sweep makes, a task that cannot score a point, or early stopping at steps that are not logged.
    """
    if not sweep.points:
        raise ValueError("the sweep is empty: it has no points; give each axis at least one value")
    configs = []
    for number, point in enumerate(sweep.points):
        if not point:
            raise ValueError(f"point {number} of the sweep sets no field")
        try:
            configs.append(check(with_values(config, point)))
        except ValueError as error:
            raise ValueError(f"point {number} of the sweep: {error}") from error
    seen: dict[str, int] = {}
    for number, point_config in enumerate(configs):
        first = seen.setdefault(to_json(point_config), number)
        if first != number:
            raise ValueError(f"points {first} and {number} of the sweep are the same experiment; leave one out")
    if sweep.better not in ("", "lower", "higher"):
        raise ValueError(f"better={sweep.better!r} must be lower or higher")
    stages = needed_stages(sweep, config)
    for task in sweep.tasks:
        _check_known("task", task, task_names())
        missing = [stage for stage in task_kind(task).needs if stage not in stages]
        if missing:
            raise ValueError(f"task {task} of the sweep needs stage {missing[0]}; add it to stages={stages}")
    for number, point_config in enumerate(configs):
        try:
            check_tasks(point_config, sweep.tasks)
        except ValueError as error:
            raise ValueError(f"point {number} of the sweep: {error}") from error
    for metric in sweep.metrics:
        head = metric.split(".")[0]
        if "." not in metric or head not in (*stages, *sweep.tasks) or head == "cache":
            known = ", ".join(name for name in (*stages, *sweep.tasks) if name != "cache")
            raise ValueError(f"metric {metric!r} must be STAGE.NAME or TASK.NAME of what the sweep makes: {known}")
    for metric in (sweep.metric, sweep.stop.metric if sweep.stop else ""):
        if metric and sweep.prefers_lower(metric) is None:
            raise ValueError(
                f"nothing in its name says whether {metric!r} is better lower or higher; give the sweep "
                "better='lower' or 'higher', which is for its own metric"
            )
    if sweep.stop is not None:
        _check_halving(sweep.stop, sweep, config, stages)
    return configs


def halving_metric(sweep: Sweep) -> tuple[str, str]:
    """(stage, name of the metric) that early stopping looks at."""
    assert sweep.stop is not None
    stage, _, name = (sweep.stop.metric or sweep.metric).partition(".")
    return stage, name


def _check_halving(stop: Halving, sweep: Sweep, config: Any, stages: tuple[str, ...]) -> None:
    stage, name = halving_metric(sweep)
    if stage not in stages or stage == "cache" or not name:
        raise ValueError(
            f"early stopping needs a metric of a trained stage, as features.loss, got {stop.metric or sweep.metric!r}"
        )
    if not 0 < stop.keep < 1:
        raise ValueError(f"early stopping keeps a share between 0 and 1, got {stop.keep}")
    section, every = stage_of(stage).section(config), config.logging.every
    ascending = list(stop.steps) == sorted(set(stop.steps)) and bool(stop.steps)
    if not ascending or stop.steps[0] < 1 or stop.steps[-1] >= section.steps:
        raise ValueError(
            f"early stopping needs ascending steps below {stage}.steps={section.steps}, got {stop.steps}"
        )
    unlogged = [step for step in stop.steps if step % every]
    if unlogged:
        raise ValueError(f"early stopping at step {unlogged[0]}: it must be a multiple of logging.every={every}")


def _check_known(what: str, name: str, known: Iterable[str]) -> None:
    if name not in known:
        raise ValueError(f"{what} {name!r} of the sweep is unknown; {nearest(name, list(known))}")


def as_json(sweep: Sweep) -> dict[str, Any]:
    """The declaration as plain JSON values."""
    return dataclasses.asdict(sweep)


def from_declared(content: dict[str, Any], file: Path) -> Sweep:
    """Inverse of `as_json` (lists where tuples were).

    Raises:
      ValueError: it is not one.
    """
    try:
        declared = {name: tuples(value) for name, value in content.items()}
        if content["stop"]:
            declared["stop"] = Halving(**{name: tuples(value) for name, value in content["stop"].items()})
        return Sweep(**declared)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from error
