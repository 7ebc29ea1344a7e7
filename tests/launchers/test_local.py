"""Processes on this machine: how many at a time, on which GPUs, and what a signal or a failure leaves."""

import os
import re
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from fae_jax.errors import RunFailed, Stopped
from fae_jax.launchers import Phase, Task, local

# Stands for `python -m fae_jax`: does what its first word says.
PROGRAM = """\
#!/bin/sh
shift 2
case "$1" in
  note) echo "$2 begins" >>"$3"; sleep 0.4; echo "$2 ends" >>"$3"; echo "$2 on $CUDA_VISIBLE_DEVICES" >>"$3.gpus";;
  fail) echo "fae: error: $2"; exit 2;;
  wait) trap 'echo saved >>"$2"; exit 1' TERM; echo up >>"$2"; for i in $(seq 100); do sleep 0.1; done;;
esac
"""


@pytest.fixture(autouse=True)
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "python"
    file.write_text(PROGRAM)
    file.chmod(0o755)
    monkeypatch.setattr(local, "PYTHON", (str(file), "-m", "fae_jax"))


def phase(*words: tuple[object, ...], name: str = "points") -> Phase:
    return Phase(
        name=name, tasks=tuple(Task(name=f"{name}-{n}", words=tuple(map(str, w))) for n, w in enumerate(words))
    )


def test_as_many_at_a_time_as_asked_and_phases_one_after_the_other(tmp_path: Path):
    log = tmp_path / "log"
    first, second = phase(*[("note", n, log) for n in "abcd"]), phase(("note", "z", log), name="last")
    local.launch([first, second], local.Settings(parallel=2, gpus_each=2), "s", tmp_path)
    lines = log.read_text().splitlines()
    running, most = 0, 0
    for line in lines:
        running += 1 if line.endswith("begins") else -1
        most = max(most, running)
    assert most == 2 and lines[-2:] == ["z begins", "z ends"] and len(lines) == 10
    gpus = dict(line.split(" on ") for line in (tmp_path / "log.gpus").read_text().splitlines())
    assert gpus == {"a": "0,1", "b": "2,3", "c": "0,1", "d": "2,3", "z": "0,1"}


def test_what_is_described_is_what_runs(tmp_path: Path):
    text = local.describe(
        [phase(("note", "a b"), ("fail", "c"))], local.Settings(gpus_each=1, parallel=2), "s", tmp_path
    )
    lines = text.splitlines()
    assert lines[0] == "# points, 2 at a time"
    assert lines[1] == f"CUDA_VISIBLE_DEVICES=0 {sys.executable} -P -m fae_jax note 'a b'"
    assert lines[2].startswith("CUDA_VISIBLE_DEVICES=1 ")


def test_a_failure_stops_nothing_beside_it_and_is_named(tmp_path: Path):
    log = tmp_path / "log"
    with pytest.raises(RunFailed, match=re.escape("points-0 ended with code 2 (fae: error: wrong)")):
        local.launch(
            [phase(("fail", "wrong"), ("note", "b", log)), phase(("note", "c", log))], local.Settings(), "s", tmp_path
        )
    assert "c ends" in log.read_text()
    log.unlink()
    with pytest.raises(RunFailed):  # where a whole phase failed, what follows would fail too
        local.launch([phase(("fail", "wrong")), phase(("note", "c", log))], local.Settings(), "s", tmp_path)
    assert not log.exists()


def test_a_signal_is_passed_on_waited_for_and_begins_nothing_more(tmp_path: Path):
    log = tmp_path / "log"

    def send() -> None:
        while not log.exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    threading.Thread(target=send).start()
    with pytest.raises(Stopped, match="stopped by SIGTERM"):
        local.launch([phase(("wait", log), ("note", "b", log))], local.Settings(), "s", tmp_path)
    assert log.read_text() == "up\nsaved\n"
    assert signal.getsignal(signal.SIGTERM) is before
