"""SIGTERM where no exception reaches the main thread, and where one does."""

import os
import signal
import subprocess
import sys
import time

import pytest
from running import ROOT, environment

from fae_jax.cli import stopping
from fae_jax.cli.stopping import ending_at_signals
from fae_jax.errors import Stopped

# A mutex locked twice, in C: no signal handler of Python's runs until it returns, which it never does.
STUCK = """
import ctypes
from fae_jax.cli import stopping
stopping.PATIENCE = 0.5
with stopping.ending_at_signals():
    library, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(128)
    print("stuck", flush=True)
    library.pthread_mutex_lock(mutex)
    library.pthread_mutex_lock(mutex)
"""


def test_foreign_code_is_ended_by_a_thread():
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "stuck\n"
    time.sleep(0.1)
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 1 and 0.4 < time.monotonic() - begun < 10
    assert err == "fae: failed: stopped by SIGTERM; what was finished is kept, and the same command continues\n"


def test_elsewhere_it_is_an_error_like_any_other_and_the_handler_goes_back(monkeypatch: pytest.MonkeyPatch):
    ended: list[str] = []
    monkeypatch.setattr(stopping, "end_now", ended.append)
    monkeypatch.setattr(stopping, "PATIENCE", 0.2)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped, match="stopped by SIGTERM; what was finished is kept"), ending_at_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    assert signal.getsignal(signal.SIGTERM) == before and signal.set_wakeup_fd(-1) == -1
    with ending_at_signals():
        # A stage took the signal for itself: it will end when its step is saved, however long that takes.
        taken: list[int] = []
        inner = signal.signal(signal.SIGTERM, lambda number, frame: taken.append(number))
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.5)
        signal.signal(signal.SIGTERM, inner)
    assert taken == [signal.SIGTERM] and ended == []


# A library that takes every error for a damaged file, as readers of weights do.
CAREFUL = """
import sys, time
from fae_jax.cli import program
def run(arguments):
    print("reading", flush=True)
    try:
        time.sleep(20)
    except Exception as error:
        raise ValueError("the file is damaged") from error
import fae_jax.commands.export as export
export.run = run
sys.exit(program.main(["export", "--workdir", "W", "--out", "O"]))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_passes_every_except_and_is_no_damage(number: signal.Signals):
    words = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", CAREFUL], cwd=ROOT, env=environment(), **words)
    assert process.stdout.readline() == "reading\n"
    time.sleep(0.1)
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert (
        err == f"fae: failed: stopped by {number.name}; what was finished is kept, and the same command continues\n"
    )


def test_nohup_is_respected():
    held = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ending_at_signals():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.2)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, held)


def test_what_failed_is_not_waited_for():
    waiting = (
        "import threading, time, fae_jax.__main__ as fae; threading.Thread(target=time.sleep, args=(60,)).start();"
    )
    begun = time.monotonic()
    command = f"{waiting} raise SystemExit(fae.main(['run', '--nothing']))"
    done = subprocess.run([sys.executable, "-c", command], cwd=ROOT, env=environment(), capture_output=True)
    assert done.returncode == 2 and done.stderr.count(b"\n") == 1, done.stderr
    assert time.monotonic() - begun < 50


# A signal in the middle of an import, where exceptions may be swallowed or end the process by a fault.
READING = """
import os, sys
from fae_jax.__main__ import main
class Told:
    def find_spec(self, name, *_):
        if name == "jax":
            os.kill(os.getpid(), int(sys.argv.pop()))
sys.meta_path.insert(0, Told())
sys.exit(main())
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_while_the_program_is_read_it_ends_quietly(number: signal.Signals):
    words = [sys.executable, "-c", READING, "run", "--workdir", "none", str(int(number))]
    done = subprocess.run(words, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        done.stderr
        == f"fae: failed: stopped by {number.name}; what was finished is kept, and the same command continues\n"
    )
