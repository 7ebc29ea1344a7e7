"""The metrics of steps in flight: read when they are there anyway, told, and judged.

The loop never waits for the newest step: it reads the metrics of a step two steps later.
"""

from __future__ import annotations

import time
from collections import deque

import jax

from fae_jax.training import goodput
from fae_jax.training.goodput import Phases
from fae_jax.training.monitoring import MetricsLog, Progress
from fae_jax.training.task import Task

IN_FLIGHT = 2  # steps dispatched before the metrics of the first of them are read


class NotFinite(Exception):
    """More steps in a row were skipped than may be.

    Attributes:
      step: the last of them.
      count: how many.
    """

    def __init__(self, step: int, count: int):
        super().__init__(step, count)
        self.step, self.count = step, count


class Curve:
    """What the steps of a run report, in order.

    Args:
      task: what is trained.
      start: the step the run continues from.
      every: steps between rows of the log; the first and the last step have one in any case.
      phases: the run's clock.
      log, progress: where it is told.
    """

    def __init__(self, task: Task, start: int, every: int, phases: Phases, log: MetricsLog, progress: Progress):
        self._task, self._every, self._phases, self._log, self._progress = task, every, phases, log, progress
        self._earlier = goodput.from_metrics(log.last)
        self._waiting: deque[tuple[int, dict[str, jax.Array]]] = deque()
        self._told: dict[int, dict[str, float]] = {}
        self._marked = (time.monotonic(), start)

    def tell(self, step: int, values: dict[str, float]) -> None:
        """Adds values to the row of a step that is still in flight."""
        self._told[step] = values

    def add(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Takes a step's metrics, not yet computed, and reads those of the step `IN_FLIGHT` before.

        Raises:
          NotFinite: see `settle`.
        """
        self._waiting.append((step, metrics))
        self.settle(IN_FLIGHT)

    def settle(self, left: int = 0) -> None:
        """Reads the metrics of all but the `left` newest steps.

        Raises:
          NotFinite: more steps in a row than `max_skipped` had a loss or gradient that is not finite.
        """
        while len(self._waiting) > left:
            step, metrics = self._waiting.popleft()
            values = {name: float(value) for name, value in jax.device_get(metrics).items()}
            self._progress.update(step, values.get("loss"))
            told = self._told.pop(step, {})
            if told or step % self._every == 0 or step in (1, self._task.section.steps):
                spent = goodput.added(self._earlier, self._phases.seconds())
                self._log.write(step, {**values, **told, **self._speed(step), **goodput.metrics(spent)})
            if self._task.section.max_skipped < values["skipped_in_a_row"]:
                raise NotFinite(step, int(values["skipped_in_a_row"]))

    def _speed(self, step: int) -> dict[str, float]:
        """Since the row before."""
        now = time.monotonic()
        rate = (step - self._marked[1]) / max(now - self._marked[0], 1e-9)
        self._marked = (now, step)
        speed = {"images_per_second": rate * self._task.section.batch}
        if self._task.flops:
            speed["teraflops_per_second"] = rate * self._task.flops / 1e12
            if self._task.peak:
                speed["mfu"] = rate * self._task.flops / self._task.peak
        return speed
