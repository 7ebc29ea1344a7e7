"""A run that stands still ends, and says on which host and what it waits for."""

from __future__ import annotations

import dataclasses
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import ClassVar

import jax

from fae_jax.files.paths import Path
from fae_jax.files.writing import write_atomically
from fae_jax.parallel.ending import end_now
from fae_jax.section import at_least, option
from fae_jax.training.goodput import Phases

# phase → what the host waits for in it
WAITS = {
    "start": "the state to be made or restored",
    "compile": "the first step, its compilation included",
    "data": "a batch",
    "step": "a step",
    "checkpoint": "a checkpoint to be written",
    "evaluation": "a preview",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class WatchSection:
    """How long a run may stand still."""

    operational: ClassVar[bool] = True
    data: float = option(
        600.0, "seconds to wait for a batch before the run ends, saying so; 0 = for ever", at_least(0)
    )
    step: float = option(
        3600.0, "seconds for a step (the first with its compilation), a checkpoint or a preview", at_least(0)
    )
    hosts: float = option(
        30.0, "seconds without a word from a host after which the run ends on all hosts", at_least(1)
    )


class Watchdog:
    """Ends the process when a phase takes longer than it may.

    Args:
      name: of the stage.
      directory: of the stage; the stacks of all threads go to `stalled/` in it.
      phases: the run's clock.
      data: seconds for one batch; 0 = for ever.
      step: seconds for anything else; 0 = for ever.
      end: called with the message; does not return in a run.
    """

    def __init__(
        self,
        name: str,
        directory: Path,
        phases: Phases,
        *,
        data: float,
        step: float,
        end: Callable[[str], object] = end_now,
    ):
        self._name, self._directory, self._phases, self._end = name, directory, phases, end
        self._limits = {"data": data}
        self._other = step
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fae-watchdog", daemon=True)
        shortest = min((limit for limit in (data, step) if limit), default=0.0)
        self._pause = min(1.0, shortest / 4)
        if shortest:
            self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(self._pause):
            phase, since = self._phases.now
            limit = self._limits.get(phase, self._other)
            waited = time.monotonic() - since
            if limit and waited > limit:
                return self._stalled(phase, waited)
        return None

    def _stalled(self, phase: str, waited: float) -> None:
        host = jax.process_index()
        field = "watch.data" if phase in self._limits else "watch.step"
        file = self._directory / "stalled" / f"host-{host}.txt"
        try:
            write_atomically(file, _stacks())
            where = f"the stacks of its threads are in {file}"
        except OSError as error:
            where = f"the stacks of its threads could not be written ({error.strerror or error})"
        self._end(
            f"{self._name}: host {host} of {jax.process_count()} ({socket.gethostname()}) has waited {waited:.0f} s "
            f"for {WAITS[phase]}; {where}; the same command continues from the last checkpoint, and {field} says "
            "how long to wait"
        )

    def close(self) -> None:
        """Ends the watch."""
        self._over.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()


def _stacks() -> str:
    """Where every thread stands."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    stacks = {ident: "".join(traceback.format_stack(frame)) for ident, frame in sys._current_frames().items()}
    return "\n".join(f"{names.get(ident, ident)}\n{stack}" for ident, stack in stacks.items())
