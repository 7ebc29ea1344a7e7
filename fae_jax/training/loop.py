"""The training loop: restore, step, log, preview, save; exact at any interruption.

The batch at step k and every random number in it are functions of (seed, k), so the position of a run is its step
number and a restored state continues the very curve it left. The loop never waits for the newest step: it reads the
metrics of a step two steps later, when they are there anyway.
"""

from __future__ import annotations

import dataclasses
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from fae_jax.parallel.mesh import put_batch
from fae_jax.training.checkpoints import Checkpoints
from fae_jax.training.monitoring import MetricsLog, Progress
from fae_jax.training.state import Player, TrainState, create_state, state_shardings
from fae_jax.training.step import compile_step
from fae_jax.workdir import RunFailed

IN_FLIGHT = 2  # steps dispatched before the metrics of the first of them are read


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """What a stage hands to the trainer.

    Attributes:
      name: of the stage, and of its folder.
      players: see `Player`.
      frozen: parameters that are read and not trained, on devices.
      batches: step → this host's shares of batches from that step on.
      seed: of initialisation and steps.
      section: the stage's training section of the configuration.
      start: parameters of players that do not start from scratch, by name.
      preview: state → (uint8 picture (y, x, 3), caption), or None.
    """

    name: str
    players: Mapping[str, Player]
    frozen: Mapping[str, Any]
    batches: Callable[[int], Iterator[dict[str, np.ndarray]]]
    seed: int
    section: ConfigDict
    start: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    preview: Callable[[TrainState], tuple[np.ndarray, str]] | None = None


class _Stop:
    """Turns SIGTERM and SIGINT into a wish to stop after the current step; a second SIGINT stops at once."""

    def __init__(self) -> None:
        self.wanted: str | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Stop:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.wanted and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.wanted = signal.Signals(number).name

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def abstract_state(players: Mapping[str, Player], mesh: Mesh) -> TrainState:
    """Shapes and places of a state, to restore one."""
    shapes, places = state_shardings(players, mesh)
    return jax.tree.map(lambda s, p: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=p), shapes, places)


def train(task: Task, directory: Path, mesh: Mesh, *, logging: ConfigDict, checkpoint: ConfigDict) -> TrainState:
    """Trains until `task.section.steps`, from wherever the directory's checkpoints are.

    Raises:
      RunFailed: stopped by a signal, too many non-finite steps in a row, or a checkpoint cannot be written; what
        was saved stays.
    """
    checkpoints = Checkpoints(directory / "checkpoints", checkpoint.keep)
    restored = checkpoints.restore(abstract_state(task.players, mesh))
    start, state = restored if restored else (0, create_state(task.players, task.seed, mesh, task.start))
    if start >= task.section.steps:
        return state
    step_function = compile_step(task.players, task.section.microbatches, task.seed, mesh)
    log = MetricsLog(directory, start, logging.tensorboard)
    progress = Progress(task.name, start, task.section.steps, task.section.batch)
    begun, earlier, marked = time.monotonic(), log.seconds, (time.monotonic(), start)
    waiting: deque[tuple[int, dict[str, jax.Array]]] = deque()

    def settle(left: int) -> None:
        """Reads the metrics of all but the `left` newest steps."""
        nonlocal marked
        while len(waiting) > left:
            step, metrics = waiting.popleft()
            values = {name: float(value) for name, value in jax.device_get(metrics).items()}
            loss = next((value for name, value in values.items() if name.endswith("loss")), None)
            progress.update(step, loss)
            if step % logging.every == 0 or step == 1 or step == task.section.steps:
                now = time.monotonic()
                rate = (step - marked[1]) * task.section.batch / max(now - marked[0], 1e-9)
                marked = (now, step)
                log.write(step, {**values, "images_per_second": rate, "seconds": earlier + now - begun})
            if task.section.max_skipped < values["skipped_in_a_row"]:
                raise RunFailed(
                    f"{task.name}: {int(values['skipped_in_a_row'])} steps in a row up to step {step} had a loss or "
                    "gradient that is not finite; try a lower learning rate of this stage or dtype float32 in "
                    "another --workdir, since they change the result"
                )

    try:
        with _Stop() as stop:
            batches = task.batches(start)
            for step in range(start + 1, task.section.steps + 1):
                batch = put_batch(next(batches), mesh)
                with jax.transfer_guard("disallow"):
                    state, metrics = step_function(state, task.frozen, batch)
                waiting.append((step, metrics))
                settle(IN_FLIGHT)
                last = step == task.section.steps
                if last or stop.wanted or step % checkpoint.every == 0:
                    settle(0)
                    checkpoints.save(step, state)
                if stop.wanted and not last:
                    checkpoints.wait()
                    raise RunFailed(
                        f"stopped by {stop.wanted} at step {step} of {task.name}, saved; the same command continues"
                    )
                if task.preview and (last or (logging.preview_every and step % logging.preview_every == 0)):
                    log.picture(step, *task.preview(state))
            checkpoints.close()
    finally:
        progress.close()
        log.close()
        close = getattr(locals().get("batches"), "close", None)
        if close:
            close()
    return state
