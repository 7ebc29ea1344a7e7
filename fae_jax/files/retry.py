"""Trying again what failed for a moment: a share or a bucket that did not answer, never a disk that is full.

Attempt k + 1 follows attempt k after  first · 2ᵏ  seconds, plus up to half of that at random, so that a thousand
hosts do not come back in the same moment.
"""

from __future__ import annotations

import errno
import os
import random
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from fae_jax.files.progress import say

T = TypeVar("T")

ATTEMPTS = 5
FIRST = 0.5  # seconds before the second attempt
_PASSING = (
    *(errno.EIO, errno.ESTALE, errno.EAGAIN, errno.EINTR, errno.ETIMEDOUT, errno.EBUSY, errno.EREMOTEIO),
    *(errno.ECONNRESET, errno.ECONNREFUSED, errno.ECONNABORTED, errno.EPIPE),
    *(errno.ENETDOWN, errno.ENETUNREACH, errno.ENETRESET, errno.EHOSTDOWN, errno.EHOSTUNREACH),
)
_LASTING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.ENOENT)
_BUSY = (408, 429, 500, 502, 503, 504)  # HTTP: timed out, too many requests, the server's own troubles


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _status(error: BaseException) -> int | None:
    """The HTTP status that an error of a bucket's library carries, under one of the names they use."""
    for holder in (error, getattr(error, "response", None)):
        for name in ("status", "code", "status_code"):
            value = getattr(holder, name, None)
            if isinstance(value, str) and value.isdigit():
                value = int(value)
            if isinstance(value, int) and not isinstance(value, bool):
                return value
    return None


def _says(error: BaseException, numbers: tuple[int, ...]) -> bool:
    """Whether an error is of one of these numbers, or names one in its text, where storage libraries bury them."""
    number = getattr(error, "errno", None)
    if number is not None:
        return number in numbers
    text = str(error)
    return any(os.strerror(number) in text for number in numbers)


def is_passing(error: BaseException) -> bool:
    """Whether an error is one of a moment: EIO, ESTALE, timeouts, broken connections, HTTP 429 and 5xx.

    A full disk, missing rights and missing files are not, whatever else went wrong on the way.
    """
    causes = list(_causes(error))
    if any(_says(cause, _LASTING) for cause in causes):
        return False
    return any(
        isinstance(cause, TimeoutError | ConnectionError) or _says(cause, _PASSING) or _status(cause) in _BUSY
        for cause in causes
    )


def retried(call: Callable[[], T], what: str, *, attempts: int = ATTEMPTS, first: float = FIRST) -> T:
    """`call()`, again after errors that pass, with a line for each; other errors are raised at once.

    Args:
      call: has no effect that must not happen twice.
      what: is being done, for the line.
      attempts: in all; the last one's error is raised.
      first: seconds before the second attempt.
    """
    for attempt in range(1, attempts):
        try:
            return call()
        except Exception as error:
            if not is_passing(error):
                raise
            pause = first * 2 ** (attempt - 1) * (1 + random.random() / 2)
            text = " ".join(str(error).split())[:200]
            say(f"warning: {what}: {text}; attempt {attempt + 1} of {attempts} in {pause:.1f} s")
            time.sleep(pause)
    return call()
