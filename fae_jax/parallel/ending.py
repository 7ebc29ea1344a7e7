"""Ending a process from any of its threads, with one line that says why."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from fae_jax.files.progress import say

# What asks a process to end; SIGHUP comes when its terminal is closed, SIGINT of Ctrl-C
ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
_farewells: list[Callable[[str], object]] = []


def heeded() -> list[signal.Signals]:
    """The signals of `ENDING` that this process was not told to ignore, as `nohup` and `&` do."""
    return [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]


def on_ending(call: Callable[[str], object]) -> None:
    """Has `call(message)` made when `end_now` ends this process, as `atexit` does for an orderly end."""
    _farewells.append(call)


def end_now(message: str) -> NoReturn:
    """Prints `fae: failed: message`, ends worker processes, and leaves without waiting for anything.

    For threads that find the main one stuck where no exception reaches it: in a compilation, a collective of hosts
    of which one is gone, or a read that does not return.
    """
    say(f"fae: failed: {' '.join(message.split())}")
    for call in _farewells:
        with contextlib.suppress(Exception):
            call(message)
    leave_now(1)


def leave_now(code: int) -> NoReturn:
    """Ends the process without its exit handlers, which would wait for other threads and hosts."""
    for child in multiprocessing.active_children():
        with contextlib.suppress(OSError):
            child.kill()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
