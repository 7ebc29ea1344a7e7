"""SIGTERM, SIGHUP and SIGINT between steps: a notice of preemption, `scancel`, a terminal that is closed, Ctrl-C.
Elsewhere: `cli/stopping.py`.

The step in flight is finished, its state saved, and the run ends. With several hosts SIGTERM belongs to JAX's
preemption service: a notice to one of them reaches all, and they agree on the step after which they save
(`reached_preemption_sync_point`).
"""

from __future__ import annotations

import itertools
import os
import signal
import threading
from types import FrameType
from typing import Any

import jax
from jax.experimental import multihost_utils

from fae_jax.errors import Stopped
from fae_jax.parallel.ending import heeded

# The hosts of a run ask equally often, and the service counts the questions of a process, not of a stage.
_asked = itertools.count(1)


class Stop:
    """Turns SIGTERM, SIGHUP and SIGINT into a wish to stop after the current step; a second SIGINT stops at once."""

    def __init__(self) -> None:
        self._signal: str | None = None
        self._before: dict[int, Any] = {}
        self._several = jax.process_count() > 1

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            ending = [number for number in heeded() if not (self._several and number == signal.SIGTERM)]
            for number in ending:
                self._before[number] = signal.signal(number, self._note)
        return self

    def wanted(self) -> str | None:
        """The signal that wants the run to stop after this step; asked once per step, by every host."""
        if self._several:
            return "SIGTERM" if multihost_utils.reached_preemption_sync_point(next(_asked)) else None
        return self._signal

    def late(self) -> str | None:
        """A signal that came after the last step had asked; with several hosts the next stage hears of it."""
        return None if self._several else self._signal

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._signal and number == signal.SIGINT:
            raise Stopped("interrupted; the same command continues from the last checkpoint")
        self._signal = signal.Signals(number).name
        if self._several:  # a wish of one host alone: made a notice that reaches all
            os.kill(os.getpid(), signal.SIGTERM)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
