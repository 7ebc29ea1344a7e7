"""The clock of phases: nothing is counted twice, nothing is lost."""

import time

import pytest

from fae_jax.training import goodput
from fae_jax.training.goodput import NAMES, Phases


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_phases_add_up_to_the_time_there_was(clock: list[float]):
    phases = Phases()
    for name, seconds in (("compile", 2.0), ("data", 10.0), ("step", 1.0), ("data", 4.0), ("checkpoint", 3.0)):
        clock[0] += seconds  # spent in the phase before
        phases.enter(name)
    clock[0] += 5.0
    assert phases.now == ("checkpoint", 120.0)
    seconds = phases.seconds()
    wanted = {"start": 2.0, "compile": 10.0, "data": 1.0 + 3.0, "step": 4.0, "checkpoint": 5.0, "evaluation": 0.0}
    assert seconds == wanted
    assert sum(seconds.values()) == 25.0 and phases.seconds() == seconds  # looking changes nothing
    phases.enter("checkpoint")  # anew: the watchdog counts from here
    assert phases.now == ("checkpoint", 125.0) and phases.seconds() == seconds


def test_rows_continue_over_restarts():
    first = dict(zip(NAMES, (1.0, 2.0, 3.0, 10.0, 0.0, 4.0), strict=True))
    row = goodput.metrics(first)
    assert row["seconds"] == 20.0 and row["goodput"] == 0.5 and row["seconds_data"] == 3.0
    assert goodput.from_metrics(row) == first
    both = goodput.added(goodput.from_metrics(row), {**dict.fromkeys(NAMES, 0.0), "step": 20.0})
    assert goodput.metrics(both)["seconds"] == 40.0 and goodput.metrics(both)["goodput"] == 0.75
    # Rows written before there were phases: no time is forgotten.
    assert sum(goodput.from_metrics({"seconds": 7.0, "loss": None}).values()) == 7.0
    assert goodput.from_metrics({}) == dict.fromkeys(NAMES, 0.0)
