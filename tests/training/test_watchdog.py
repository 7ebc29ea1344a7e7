"""A run that stands still ends, says where, and leaves the stacks of its threads."""

import queue
import subprocess
import sys
import time
from pathlib import Path

from running import ROOT, environment

from fae_jax.training.goodput import Phases
from fae_jax.training.watchdog import Watchdog


def test_a_phase_that_takes_too_long_ends_the_run_with_its_name(tmp_path: Path):
    ended: queue.Queue[str] = queue.Queue()
    phases = Phases()
    watchdog = Watchdog("features", tmp_path, phases, data=0.2, step=30.0, end=ended.put)
    for _ in range(5):  # busy, and each wait short: nothing happens
        for phase in ("data", "step"):
            phases.enter(phase)
            time.sleep(0.06)
    assert ended.empty()
    phases.enter("data")
    message = ended.get(timeout=3)
    file = tmp_path / "stalled" / "host-0.txt"
    assert message.startswith("features: host 0 of 1 (") and "has waited 0 s for a batch; the stacks" in message
    assert str(file) in message and "watch.data says how long to wait" in message
    assert "test_a_phase_that_takes_too_long" in file.read_text()  # this thread, and where it stands
    watchdog.close()


def test_zero_waits_for_ever(tmp_path: Path):
    ended: queue.Queue[str] = queue.Queue()
    phases = Phases()
    watchdog = Watchdog("features", tmp_path, phases, data=0.0, step=0.2, end=ended.put)
    phases.enter("data")
    time.sleep(0.5)
    assert ended.empty()
    phases.enter("step")
    assert "for a step" in ended.get(timeout=3)
    watchdog.close()
    Watchdog("features", tmp_path, phases, data=0.0, step=0.0, end=ended.put).close()


def test_a_thread_that_no_exception_reaches_is_ended_too(tmp_path: Path):
    code = (
        "import threading; from pathlib import Path\n"
        "from fae_jax.training.goodput import Phases; from fae_jax.training.watchdog import Watchdog\n"
        f"watchdog = Watchdog('pixels', Path({str(tmp_path)!r}), Phases(), data=1, step=0.3)\n"
        "lock = threading.Lock(); lock.acquire(); lock.acquire()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("fae: failed: pixels: host 0 of 1")]
    assert "for the state to be made or restored" in line and "watch.step" in line
