"""Where the time of a run goes, and how fast it is.

    phase          the host is
    start          making or restoring the state, opening data
    compile        in the first step, which compiles the program
    data           waiting for a batch
    step           handing steps to the devices and waiting for them
    checkpoint     copying the state, and waiting for the save before
    evaluation     making previews

A run is in one phase at a time, so that their seconds add up to all of them. Steps run on while the host is in the
other phases for a short time: `data` counts only what the host waits, which costs nothing while two steps are in
flight.

    goodput = seconds in `step` / all seconds            model FLOP/s = FLOPs of a step · steps / seconds      (1)
    MFU = model FLOP/s / (peak of a chip · chips)
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

NAMES = ("start", "compile", "data", "step", "checkpoint", "evaluation")


class Phases:
    """A clock that is always in one phase; it begins in `start`.

    Attributes:
      now: the phase, and the moment it was entered; one value, so that another thread never sees half of it.
    """

    def __init__(self) -> None:
        self._seconds = dict.fromkeys(NAMES, 0.0)
        self.now = (NAMES[0], time.monotonic())

    def enter(self, name: str) -> None:
        """Ends the phase it is in and begins another, or the same anew."""
        moment = time.monotonic()
        current, since = self.now
        self._seconds[current] += moment - since
        self.now = (name, moment)

    def seconds(self) -> dict[str, float]:
        """By phase, up to now."""
        current, since = self.now
        return {**self._seconds, current: self._seconds[current] + time.monotonic() - since}


def added(ours: Mapping[str, float], theirs: Mapping[str, float]) -> dict[str, float]:
    """Seconds by phase of two runs together."""
    return {name: ours.get(name, 0.0) + theirs.get(name, 0.0) for name in NAMES}


def goodput(seconds: Mapping[str, float]) -> float:
    """Equation (1): the share of the time that went into steps."""
    return seconds["step"] / max(sum(seconds.values()), 1e-9)


def metrics(seconds: Mapping[str, float]) -> dict[str, float]:
    """A row's worth: `seconds` in all, `seconds_PHASE` for each phase, and `goodput`; over all restarts."""
    by_phase = {f"seconds_{name}": seconds[name] for name in NAMES}
    return {"seconds": sum(seconds.values()), **by_phase, "goodput": goodput(seconds)}


def from_metrics(row: Mapping[str, Any]) -> dict[str, float]:
    """Inverse of `metrics`; rows of versions that did not know phases count as steps."""
    seconds = {name: float(row.get(f"seconds_{name}") or 0.0) for name in NAMES}
    return seconds if any(seconds.values()) else {**seconds, "step": float(row.get("seconds") or 0.0)}
