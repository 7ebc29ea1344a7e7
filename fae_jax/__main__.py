"""The command `fae`, also `python -m fae_jax`."""

import os
import signal
from collections.abc import Sequence


def _leave(number: int, frame: object) -> None:
    """Ends the process at once: while the program is read nothing has begun that could be lost, and the library that
    is being imported might swallow an exception, or end the process by a fault."""
    name = signal.Signals(number).name
    line = f"fae: failed: stopped by {name}; what was finished is kept, and the same command continues\n"
    try:
        os.write(2, line.encode())
    finally:
        os._exit(1)


def main(words: Sequence[str] | None = None) -> int:
    """Runs the command line `words` (default: the process's); returns 0, or ends the process.

    What failed may have left threads that wait for it, a library's for its storage or a host's for the others, and
    an orderly exit would wait for them.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _leave)
    from fae_jax.cli import program
    from fae_jax.parallel.ending import leave_now

    code = program.main(words)
    if code:
        leave_now(code)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
