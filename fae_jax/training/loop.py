"""The training loop: restore, step, log, preview, save; exact at any interruption.

The batch at step k and every random number in it are functions of (seed, k), so the position of a run is its step
number and a restored state continues the very curve it left. What can go wrong has files of its own: signals
(`signals`), standing still (`watchdog`), bad steps and full memory (`remedies`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from fae_jax.errors import RunFailed, Stopped
from fae_jax.files.paths import Path
from fae_jax.parallel.hosts import is_first
from fae_jax.parallel.mesh import put_batch
from fae_jax.training.checkpoints import Checkpoints
from fae_jax.training.curve import Curve
from fae_jax.training.goodput import Phases
from fae_jax.training.monitoring import MetricsLog, Progress
from fae_jax.training.profile import ProfileWindow
from fae_jax.training.remedies import explained
from fae_jax.training.signals import Stop
from fae_jax.training.state import Player, TrainState, create_state, state_shardings
from fae_jax.training.step import compile_step
from fae_jax.training.task import Task
from fae_jax.training.watchdog import Watchdog


def abstract_state(players: Mapping[str, Player], mesh: Mesh) -> TrainState:
    """Shapes and places of a state, to restore one."""
    shapes, places = state_shardings(players, mesh)
    return jax.tree.map(lambda s, p: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=p), shapes, places)


def train(task: Task, directory: Path, mesh: Mesh, config: Any, phases: Phases | None = None) -> TrainState:
    """Trains until `task.section.steps`, from wherever the directory's checkpoints are.

    Args:
      task: what to train.
      directory: of the stage.
      mesh: where to.
      config: its sections `compute`, `logging`, `checkpoint` and `watch` are read.
      phases: a clock that shows, afterwards too, where the time of this run went.

    Raises:
      Stopped: by a signal, or at `checkpoint.pause_at`; saved.
      RunFailed: too many non-finite steps in a row, no memory left, or a checkpoint cannot be written; what was saved
        stays.
    """
    phases, steps = phases or Phases(), task.section.steps
    checkpoints = Checkpoints(directory / "checkpoints", config.checkpoint.keep, config.checkpoint.keep_at)
    with contextlib.ExitStack() as stack:
        watchdog = Watchdog(task.name, directory, phases, data=config.watch.data, step=config.watch.step)
        stack.callback(watchdog.close)
        stack.callback(checkpoints.let_go)
        stack.enter_context(explained(task, directory, lambda: state))
        restored = checkpoints.restore(abstract_state(task.players, mesh))
        start, state = restored if restored else (0, create_state(task.players, task.seed, mesh, task.start()))
        if start >= steps:
            if not restored:  # what it starts from is what it leaves
                checkpoints.finish(start, state)
                checkpoints.close()
            return _learned(state, steps, task)
        step_function = compile_step(
            task.players, task.section.microbatches, task.seed, mesh, config.compute.gradients
        )
        log = MetricsLog(directory, start, config.logging, is_first())
        stack.callback(log.close)
        progress = Progress(task.name, start, steps, task.section.batch, speaks=is_first())
        stack.callback(progress.close)
        curve = Curve(task, start, config.logging.every, phases, log, progress)
        profile = ProfileWindow(directory, config.logging.profile, start)
        stack.callback(profile.close)
        batches = task.batches(start)
        stack.callback(getattr(batches, "close", lambda: None))
        stop: Stop | None = None
        for step in range(start + 1, steps + 1):
            phases.enter("data")
            batch = put_batch(next(batches), mesh)
            phases.enter("step" if stop else "compile")
            if profile.touches(step):
                curve.settle()
                profile.before(step)
            with jax.transfer_guard("disallow"):
                state, metrics = step_function(state, task.frozen, batch)
            # Before its first step is compiled a run has nothing to save, and signals end it at once.
            stop = stop or stack.enter_context(Stop())
            curve.add(step, metrics)
            phases.enter("step")
            wish, last = stop.wanted(), step == steps
            if step == config.checkpoint.pause_at and not last:
                wish = wish or "checkpoint.pause_at"
            if task.score and (last or (step % task.score_every == 0 and not wish)):
                phases.enter("evaluation")
                curve.tell(step, task.score(state))
            saves = last or wish or step % config.checkpoint.every == 0 or step in config.checkpoint.keep_at
            if saves or profile.touches(step):
                curve.settle()
            profile.after(step)
            if saves:
                phases.enter("checkpoint")
                log.flush()
                checkpoints.save(step, state)
            if wish and not last:
                checkpoints.finish(step, state)
                raise _stopped(wish, step, task)
            if task.preview and (last or (config.logging.preview_every and step % config.logging.preview_every == 0)):
                phases.enter("evaluation")
                log.image(step, *task.preview(state))
        phases.enter("checkpoint")
        checkpoints.finish(steps, state)
        checkpoints.close()
        if stop and (wish := wish or stop.late()):
            raise _stopped(wish, steps, task)
    return _learned(state, steps, task)


def _learned(state: TrainState, steps: int, task: Task) -> TrainState:
    """The state, unless no step has changed it."""
    if int(state.skipped) >= steps > 0:
        raise RunFailed(
            f"{task.name}: none of its {steps} steps had a loss and a gradient that are finite: nothing was learnt; "
            "lower the learning rate, or look at the data, and begin again in another --workdir"
        )
    return state


def _stopped(wish: str, step: int, task: Task) -> Stopped:
    return Stopped(f"stopped by {wish} at step {step} of {task.name}, saved; the same command continues")
