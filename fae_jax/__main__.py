"""The command `fae`, also `python -m fae_jax`."""

from collections.abc import Sequence

from fae_jax.cli.program import main
from fae_jax.parallel.ending import leave_now


def run(words: Sequence[str] | None = None) -> int:
    """Runs the command line `words` (default: the process's); returns 0, or ends the process.

    What failed may have left threads that wait for it, a library's for its storage or a host's for the others, and
    an orderly exit would wait for them.
    """
    code = main(words)
    if code:
        leave_now(code)
    return code


if __name__ == "__main__":
    raise SystemExit(run())
