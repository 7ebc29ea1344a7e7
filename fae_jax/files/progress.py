"""Lines of progress on standard error: how much is done, how fast, how long it still takes."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable

EVERY = 10.0  # seconds between two lines
FIRST = 4  # the call that prints the first line: a batch that is past compiling


def report_progress(what: str, unit: str = "images") -> Callable[[int, int], None]:
    """A function of (images done, images in all) that prints a line after the first batches, then now and then.

    The clock starts at its second call, so neither what an earlier run left nor the first batch, which compiles,
    counts in the rate. A standard error that nobody reads any more ends the lines, never the work.
    """
    calls, start, last = 0, (0.0, 0), 0.0

    def progress(done: int, total: int) -> None:
        nonlocal calls, start, last
        calls, now = calls + 1, time.monotonic()
        if calls <= 2:
            start = (now, done)
        if done != total and (calls < FIRST or now - last < EVERY):
            return
        last, line = now, f"{what}: {done} of {total} {unit}"
        if done > start[1]:
            rate = (done - start[1]) / max(now - start[0], 1e-9)
            line += f", {rate:.3g} {unit}/s, {duration((total - done) / rate)} left"
        if not say(line):
            last = float("inf")

    return progress


def tell(text: str, end: str = "\n") -> None:
    """Prints on standard output; a reader that has gone, as `head` goes, ends nothing."""
    with contextlib.suppress(BrokenPipeError):
        print(text, end=end, flush=True)


def say(line: str) -> bool:
    """Prints a line on standard error; whether that went well, for telling never ends a run."""
    try:
        sys.stderr.write(f"{line}\n")  # at once: a thread that ends the process may write at this moment
        sys.stderr.flush()
    except (OSError, ValueError):  # its reader is gone, or it is closed
        return False
    return True


def duration(seconds: float) -> str:
    """Seconds as people say them: "50 s", "6 min 40 s", "2 h 5 min"."""
    hours, rest = divmod(round(seconds), 3600)
    if hours:
        return f"{hours} h {rest // 60} min"
    return f"{rest // 60} min {rest % 60} s" if rest >= 60 else f"{rest} s"
