"""What can go wrong by a user's doing or while running; the program turns each into one line and an exit code.

`ValueError` and `FileNotFoundError` mean that the request is wrong (exit code 2, nothing was touched); these and
`OSError` that it failed while running (exit code 1, what was finished is kept).
"""


class RunFailed(RuntimeError):
    """Something went wrong while running (exit code 1); what was finished is kept."""


class Stopped(BaseException):
    """Asked to stop, by a signal or a configuration (exit code 1); what was finished is kept, and the same command
    continues. It passes every `except Exception`, as KeyboardInterrupt does: a signal is no damage to a file."""
