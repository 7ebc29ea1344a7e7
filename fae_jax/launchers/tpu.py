"""TPU VMs, single hosts to pods, by `gcloud`: made, used for tasks in turn, made again after a preemption, deleted.

The same command runs on every worker of a slice; JAX finds the others by itself. What the tasks write must lie where
every worker and every later slice sees it: in a bucket, `gs://…`, or on a Filestore share.
"""

from __future__ import annotations

import dataclasses
import itertools
import shlex
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fae_jax.errors import RunFailed
from fae_jax.files.progress import say
from fae_jax.launchers.plan import REQUIRED, Phase, Task, cloud_name, run_phases, run_quietly
from fae_jax.section import at_least, option

WAITS = True
UP = ("ACTIVE", "READY")
COMING = (
    *("ACCEPTED", "CREATING", "PROVISIONING", "WAITING_FOR_RESOURCES"),
    *("STARTING", "RESTARTING", "REPAIRING", "REIMAGING"),
)
GOING = ("DELETING", "SUSPENDING", "STOPPING")  # gcloud deletes it only when that is over
ASKED = 5  # how often gcloud may fail to tell a slice's state
# gcloud by itself talks to 64 workers at a time, and the first would wait for the others for ever
EVERYWHERE = ("--worker=all", "--batch-size=all")
LOST = 255  # what ssh returns when the connection, not the command, failed
# A lost connection leaves its command running, which holds the chips: the next one asks it to save, and waits. sshd
# starts each command as a process group of its own.
ALONE = (
    "f=/dev/shm/fae-group; g=$(cat $f 2>/dev/null) && kill -- -$g 2>/dev/null && "
    "while kill -0 -- -$g 2>/dev/null; do sleep 1; done; echo $$ >$f; {}; c=$?; rm -f $f; exit $c"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of the TPU launcher."""

    zone: str = option(REQUIRED, "as gcloud names it: us-east5-b")
    type: str = option(REQUIRED, "the slice, as gcloud names it: v6e-64")
    version: str = option(REQUIRED, "the machines' software, as gcloud names it: v2-alpha-tpuv6e")
    project: str = option("", "Google Cloud project; default: gcloud's own")
    queued: bool = option(True, "a queued resource, which waits for its turn; False creates the VM at once or fails")
    spot: bool = option(False, "cheaper, preempted at any time; the slice is then made again and the run continues")
    parallel: int = option(1, "slices at a time; points take turns on them", at_least(1))
    setup: str = option("", "shell line run once on each worker of a new slice, such as launch/tpu_setup.sh does")
    program: str = option("fae", "command that starts `fae` there")
    restarts: int = option(20, "how often a slice may be made again for one point", at_least(0))
    keep: bool = option(False, "leave the slices up at the end")
    poll: int = option(30, "seconds between checks of a slice's state", at_least(0))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slice:
    """The gcloud command lines of one slice."""

    name: str
    settings: Settings

    @property
    def _place(self) -> list[str]:
        project = self.settings.project
        return [f"--zone={self.settings.zone}", *([f"--project={project}"] if project else [])]

    def _gcloud(self, *words: str) -> list[str]:
        return ["gcloud", "--quiet", "compute", "tpus", *words]  # quiet: asks nothing, such as whether to make a key

    @property
    def create(self) -> list[str]:
        settings = self.settings
        spot = ["--spot"] if settings.spot else []
        if settings.queued:
            head, version = ["queued-resources", "create", self.name, f"--node-id={self.name}"], "runtime-version"
        else:
            head, version = ["tpu-vm", "create", self.name], "version"
        kind = [f"--accelerator-type={settings.type}", f"--{version}={settings.version}"]
        return self._gcloud(*head, *self._place, *kind, *spot)

    @property
    def describe(self) -> list[str]:
        kind, field = ("queued-resources", "state.state") if self.settings.queued else ("tpu-vm", "state")
        return self._gcloud(kind, "describe", self.name, *self._place, f"--format=value({field})")

    @property
    def delete(self) -> list[str]:
        kind, force = ("queued-resources", ["--force"]) if self.settings.queued else ("tpu-vm", [])
        return self._gcloud(kind, "delete", self.name, *self._place, *force)

    def ssh(self, command: str) -> list[str]:
        """`command` on every worker at once."""
        return self._gcloud("tpu-vm", "ssh", self.name, *self._place, *EVERYWHERE, f"--command={command}")

    def run(self, task: Task) -> list[str]:
        """A task on every worker at once, alone there."""
        return self.ssh(ALONE.format(task.command(self.settings.program)))


def _slices(phases: list[Phase], settings: Settings, name: str) -> list[Slice]:
    count = min(settings.parallel, max(len(phase.tasks) for phase in phases))
    return [Slice(name=cloud_name(name, str(number)), settings=settings) for number in range(count)]


def describe(phases: list[Phase], settings: Settings, name: str, folder: Path) -> str:
    """Every command, slice by slice; a preempted slice is deleted and made again in between."""
    lines = []
    slices = _slices(phases, settings, name)
    for made in slices:
        lines += [f"# slice {made.name}", shlex.join(made.create)]
        lines.append(f"{shlex.join(made.describe)} # until ACTIVE or READY")
        lines += [shlex.join(made.ssh(settings.setup))] if settings.setup else []
    for phase in phases:
        lines.append(f"# {phase.name}, {len(slices)} at a time")
        for number, task in enumerate(phase.tasks):
            lines.append(shlex.join(slices[number % len(slices)].run(task)))
    if not settings.keep:
        lines += ["# the end", *(shlex.join(made.delete) for made in slices)]
    return "\n".join(lines) + "\n"


def _state(made: Slice) -> str:
    """The slice's state by gcloud; empty if there is no such slice.

    Raises:
      RunFailed: gcloud does not tell.
    """
    for _ in range(ASKED):
        done = subprocess.run(made.describe, capture_output=True, text=True)
        if done.returncode == 0:
            return done.stdout.strip()
        if "NOT_FOUND" in done.stderr:
            return ""
        time.sleep(made.settings.poll)
    raise RunFailed(f"asking for {made.name}: {(done.stderr.strip() or 'gcloud failed').splitlines()[-1]}")


def bring_up(made: Slice, prepared: set[str]) -> None:
    """Returns when the slice is there and set up; makes it, or makes it again, as its state requires.

    Args:
      prepared: names of the slices that this process has set up; one that an earlier process left may be half done.

    Raises:
      RunFailed: gcloud refuses to make it, or it cannot be set up.
    """
    while (state := _state(made)) in GOING:
        time.sleep(made.settings.poll)
    if state and state not in (*UP, *COMING):
        say(f"tpu: {made.name} is {state}; making it again")
        run_quietly(made.delete, f"deleting {made.name}")
        state = ""
    if not state:
        run_quietly(made.create, f"making {made.name}")
    if state not in UP:
        prepared.discard(made.name)
    while state not in UP:
        time.sleep(made.settings.poll)
        state = _state(made)
        if state and state not in (*UP, *COMING):
            raise RunFailed(f"slice {made.name} is {state}; see `{shlex.join(made.describe)}`")
    if made.settings.setup and made.name not in prepared:
        run_quietly(made.ssh(made.settings.setup), f"setting up {made.name}")
    prepared.add(made.name)


def run_task(made: Slice, task: Task, logs: Path, prepared: set[str]) -> str | None:
    """Runs a task to its end, over preemptions; returns what failed, if the task itself did."""
    for _ in range(made.settings.restarts + 1):
        bring_up(made, prepared)
        with open(logs / f"{task.name}.log", "a") as file:
            words = made.run(task)
            code = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT).returncode
        if code == 0:
            return None
        time.sleep(made.settings.poll)  # a preemption shows in the state a little later
        if code != LOST and _state(made) in UP:
            return f"{task.name} ended with code {code}"
        say(f"tpu: {task.name}: {made.name} was lost; it continues on a new one")
    return f"{task.name}: {made.name} was lost {made.settings.restarts + 1} times"


def launch(phases: list[Phase], settings: Settings, name: str, folder: Path) -> None:
    """Runs everything on `parallel` slices, task i on slice i mod parallel, and deletes them at the end.

    Raises:
      RunFailed: tasks failed, or a slice could not be made.
    """
    logs = folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    slices, prepared = _slices(phases, settings, name), set[str]()

    def lane(number: int, phase: Phase) -> list[str]:
        ended = (run_task(slices[number], task, logs, prepared) for task in phase.tasks[number :: len(slices)])
        return [failed for failed in ended if failed]

    def run(phase: Phase) -> list[str]:
        with ThreadPoolExecutor(len(slices)) as pool:
            return list(itertools.chain(*pool.map(lane, range(len(slices)), itertools.repeat(phase))))

    try:
        run_phases(phases, run, f"logs are in {logs}; the same command tries again")
    finally:
        for made in slices if not settings.keep else ():
            subprocess.run(made.delete, capture_output=True)
