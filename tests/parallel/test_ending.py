"""Ending a process from a thread: the line, the code, the farewells, and no child left behind."""

import subprocess
import sys
import time
from pathlib import Path

from running import ROOT, environment

CODE = """
import multiprocessing, threading, time
from fae_jax.parallel.ending import end_now, on_ending

def broken(message):
    raise OSError("no connection")

if __name__ == "__main__":
    child = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,), daemon=True)
    child.start()
    print(child.pid, flush=True)
    on_ending(broken)
    on_ending(lambda message: print("told:", message, flush=True))
    threading.Thread(target=end_now, args=("of  two\\nlines",)).start()
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()
"""


def test_one_line_exit_code_one_and_workers_end_too(tmp_path: Path):
    file = tmp_path / "run.py"
    file.write_text(CODE)
    done = subprocess.run(
        [sys.executable, file], cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1 and done.stderr == "fae: failed: of two lines\n"
    child, told, *rest = done.stdout.splitlines()
    assert (told, rest) == ("told: of  two", ["lines"])
    deadline = time.monotonic() + 5
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    state = Path(f"/proc/{child}/stat")
    assert not state.exists() or state.read_text().split()[2] == "Z"
