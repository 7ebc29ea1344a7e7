"""Run by test_resume: `fae` commands, each in a process forked from this one, which has read the program already.

Standard input has a command a line, as JSON: its `words`, and where it is to be killed `file`, `lines` and `delay`:
so many seconds after it has written the file and that has so many lines. Standard output has how each ended. Nothing
here touches a device, since a process in which JAX has begun cannot be forked.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

from running import lines

import fae_jax.cli.program
import fae_jax.commands.train
import fae_jax.data.loader
import fae_jax.stages.pixels
import fae_jax.stages.training  # noqa: F401


def end_of(process: int, file: Path, least: int, delay: float) -> int:
    """Kills it when it is due, and waits for it: its exit code."""
    begun, code = time.time(), (0, 0)
    while not code[0]:
        if least and lines(file) >= least and file.stat().st_mtime > begun:
            time.sleep(delay)
            os.kill(process, signal.SIGKILL)
            least = 0
        code = os.waitpid(process, os.WNOHANG if least else 0)
        time.sleep(0.001)
    return os.waitstatus_to_exitcode(code[1])


for line in sys.stdin:
    order = json.loads(line)
    process = os.fork()
    if not process:
        nowhere = os.open(os.devnull, os.O_RDWR)
        for number in range(3):
            os.dup2(nowhere, number)
        os._exit(fae_jax.cli.program.main(order["words"]))
    print(end_of(process, Path(order["file"]), order["lines"], order["delay"]), flush=True)
