"""This machine: one process after the other, or several side by side, each on GPUs of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from fae_jax.errors import Stopped
from fae_jax.files.progress import say
from fae_jax.launchers.plan import PYTHON, Phase, Task, run_phases
from fae_jax.parallel.ending import heeded
from fae_jax.section import at_least, at_most, option

WAITS = True  # `launch` returns when everything has ended
POLL = 0.1  # seconds between looks at the running processes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of the local launcher."""

    parallel: int = option(1, "processes side by side", at_least(1))
    gpus_each: int = option(
        0, "GPUs per process, by CUDA_VISIBLE_DEVICES; 0 leaves that alone", at_least(0), at_most(64)
    )

    def environment(self, number: int) -> dict[str, str]:
        """What task `number` of a phase sees beside this process's environment."""
        if not self.gpus_each:
            return {}
        first = number % self.parallel * self.gpus_each
        return {"CUDA_VISIBLE_DEVICES": ",".join(map(str, range(first, first + self.gpus_each)))}


def describe(phases: list[Phase], settings: Settings, name: str, folder: Path) -> str:
    """The commands, `parallel` at a time; a task waits for the one `parallel` places before it."""
    lines = []
    for phase in phases:
        lines.append(f"# {phase.name}" + (f", {settings.parallel} at a time" if len(phase.tasks) > 1 else ""))
        for number, task in enumerate(phase.tasks):
            words = [f"{key}={value} " for key, value in settings.environment(number).items()]
            lines.append("".join(words) + task.command())
    return "\n".join(lines) + "\n"


@contextlib.contextmanager
def _passing_on(running: dict[int, tuple[Task, subprocess.Popen]]) -> Iterator[list[str]]:
    """Passes SIGTERM, SIGHUP and SIGINT on to running processes as SIGTERM; yields the names of those that came."""
    came: list[str] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        came.append(signal.Signals(number).name)
        for _, process in list(running.values()):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)

    before = {number: signal.signal(number, pass_on) for number in heeded()}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run_phase(phase: Phase, settings: Settings, folder: Path) -> list[str]:
    """Runs the tasks in `parallel` lanes, task i in lane i mod parallel; returns the failures, a line each.

    Raises:
      Stopped: a signal came; the running tasks were told and waited for.
    """
    lanes = [list(enumerate(phase.tasks))[lane :: settings.parallel] for lane in range(settings.parallel)]
    running: dict[int, tuple[Task, subprocess.Popen]] = {}
    failures = []
    with _passing_on(running) as came:
        while any(lanes) or running:
            for lane, waiting in enumerate(lanes):
                if came:
                    waiting.clear()
                if waiting and lane not in running:
                    number, task = waiting.pop(0)
                    log = folder / f"{task.name}.log"
                    say(f"sweep: {task.name}: {shlex.join(task.words)} (log: {log})")
                    with open(log, "a") as file:
                        process = subprocess.Popen(
                            [*PYTHON, *task.words],
                            stdout=file,
                            stderr=subprocess.STDOUT,
                            env={**os.environ, **settings.environment(number)},
                            start_new_session=True,  # the terminal's Ctrl-C comes here, and is passed on once
                        )
                    running[lane] = (task, process)
            for lane, (task, process) in list(running.items()):
                if process.poll() is not None:
                    del running[lane]
                    if process.returncode and not came:
                        last = (folder / f"{task.name}.log").read_text().strip().splitlines()[-1:] or ["no output"]
                        failures.append(f"{task.name} ended with code {process.returncode} ({last[0]})")
                        say(f"sweep: {failures[-1]}")
            time.sleep(POLL)
    if came:
        raise Stopped(f"stopped by {came[-1]}; what was finished is kept, the same command continues")
    return failures


def launch(phases: list[Phase], settings: Settings, name: str, folder: Path) -> None:
    """Runs everything, and returns when it has ended. A task that fails does not stop those beside it.

    Args:
      name: the sweep's name.
      folder: for logs.

    Raises:
      RunFailed: tasks failed; the first are named.
      Stopped: a signal came.
    """
    logs = folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    run_phases(
        phases, lambda phase: _run_phase(phase, settings, logs), f"logs are in {logs}; the same command tries again"
    )
