"""SIGTERM, SIGHUP (a terminal that is closed) and SIGINT (Ctrl-C) wherever the program is: one line and exit code 1.

where it is                         what happens
being read                          it ends at once (`__main__.py`)
between steps of a stage            the step in flight is finished and its state saved (`training/signals.py`)
anywhere else                       it ends at once: what was finished is on disk, and nothing else is lost
in foreign code (compiling, …)      the same, `PATIENCE` seconds later, by a thread, since no exception gets there, or
                                    a callback swallows it
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from fae_jax.errors import Stopped
from fae_jax.parallel.ending import ENDING, end_now, heeded

PATIENCE = 5.0  # seconds the main thread gets to end by itself


def _words(number: int) -> str:
    return f"stopped by {signal.Signals(number).name}; what was finished is kept, and the same command continues"


def _raise(number: int, frame: FrameType | None) -> None:
    raise Stopped(_words(number))


@contextlib.contextmanager
def ending_at_signals() -> Iterator[None]:
    """Within it SIGTERM, SIGHUP or SIGINT ends the program with one line, wherever it is; stages do more, by `Stop`.

    A byte for each signal arrives in a pipe even while the main thread is in foreign code; a thread reads them.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in ENDING}
    for number in heeded():
        signal.signal(number, _raise)
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    woken = signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    over = threading.Event()

    def attend() -> None:
        while number := os.read(readable, 1):
            ours = number[0] in ENDING and signal.getsignal(number[0]) is _raise
            if ours and not over.wait(PATIENCE):
                end_now(_words(number[0]))

    thread = threading.Thread(target=attend, name="fae-signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        signal.set_wakeup_fd(woken)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(writable)
        thread.join()
        os.close(readable)
