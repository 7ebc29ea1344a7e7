"""One writer at a time, on this machine or in a bucket.

Here a lock is a file with `flock`, which ends with its process. In a bucket it is an object that is made only where
there is none, and made anew every `BEAT` seconds by whoever holds it. Whoever cannot renew its own for `STALE`
seconds, or finds it taken over, ends. One that has not changed for half as long again, by an observer's own clock, or
whose process was on this machine and is gone, is taken over: its holder has ended by then.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path as LocalPath
from typing import Any

from fae_jax.files import objects
from fae_jax.files.paths import Path, is_remote
from fae_jax.files.progress import say

BEAT = 10.0  # seconds between two signs of life
STALE = 60.0  # seconds without one after which the holder ends


def stop(message: str) -> None:
    """Ends this process as SIGTERM does, with a line that says why."""
    say(f"fae: {message}")
    os.kill(os.getpid(), signal.SIGTERM)


@contextlib.contextmanager
def lock(file: Path, what: str, lost: Callable[[str], object] = stop) -> Iterator[Callable[[], None]]:
    """Holds `file` for this process; gives a function that leaves a sign of life, for `last_sign`.

    Args:
      file: the lock; its folder is there.
      what: it stands for, as errors name it.
      lost: called with a message, by a thread, when the lock is no longer ours.

    Raises:
      ValueError: another process holds it; it is named.
    """
    with _lease(file, what, lost) if is_remote(file) else _flock(file, what) as touch:
        yield touch


def last_sign(file: Path) -> str:
    """Changes whenever the holder of a lock gives a sign of life; empty where there is no lock."""
    try:
        return str(_holder(file)[0].get("signs")) if is_remote(file) else str(os.stat(file).st_mtime_ns)
    except OSError:
        return ""


def _in_use(what: str, owner: str) -> ValueError:
    return ValueError(f"{what} is in use by {owner or 'another fae process'}; wait for it or stop it")


def _owner() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


@contextlib.contextmanager
def _flock(file: Path, what: str) -> Iterator[Callable[[], None]]:
    if os.path.islink(file):
        raise ValueError(f"{file} is a link, and no lock is written through one; remove it")
    with os.fdopen(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644), "r+") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _in_use(what, held.read().strip()[:200]) from None
        held.truncate(0)
        held.write(_owner())
        held.flush()
        yield lambda: os.utime(held.fileno())


def _place() -> str:
    """Tells machines, their restarts and containers apart: within one, a process is known by its number."""
    try:
        boot = LocalPath("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _holder(file: Path) -> tuple[dict[str, Any], str]:
    """What stands in a lock, and its generation."""
    content, generation = objects.read(file)
    try:
        return dict(json.loads(content)), generation
    except ValueError:
        return {}, generation


def _is_gone(holder: dict[str, Any]) -> bool:
    """Whether a lock's process was one of this machine, and is no more."""
    if not holder.get("place") or holder["place"] != _place():
        return False
    try:
        os.kill(holder["process"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


class _Lease:
    def __init__(self, file: Path, what: str, lost: Callable[[str], object]):
        self._file, self._what, self._lost = file, what, lost
        self._token, self.signs, self._generation = uuid.uuid4().hex, 0, ""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="fae-lock", daemon=True)

    def _content(self) -> bytes:
        about = {"owner": _owner(), "process": os.getpid(), "place": _place(), "signs": self.signs}
        return json.dumps({**about, "token": self._token, "time": time.time()}).encode()

    def take(self) -> None:
        """Makes the lock, or waits to see whether whoever holds it is alive."""
        seen, since, limit = "", time.monotonic(), 1.5 * STALE
        while True:
            with contextlib.suppress(FileExistsError):
                self._generation = objects.upload(self._file, self._content(), "0")
                break
            with contextlib.suppress(FileNotFoundError, FileExistsError):  # let go of, or taken over by another
                holder, generation = _holder(self._file)
                owner = holder.get("owner", "")
                if holder.get("token") == self._token:  # made, though the answer was lost
                    self._generation = generation
                    break
                if not seen:
                    seen = generation
                    if not _is_gone(holder):
                        say(f"{self._what} is held by {owner}: waiting {limit:.0f} s at most for a sign of life")
                if generation != seen:
                    raise _in_use(self._what, owner)
                if _is_gone(holder) or time.monotonic() - since > limit:
                    objects.remove(self._file, generation)
                    continue
                time.sleep(min(1.0, BEAT / 4))
        self._thread.start()

    def _renew(self) -> None:
        renewed = time.monotonic()
        while not self._over.wait(BEAT):
            try:
                with contextlib.suppress(FileExistsError):
                    self._generation = objects.upload(self._file, self._content(), self._generation, STALE / 3)
                    renewed = time.monotonic()
                    continue
                holder, generation = _holder(self._file)
                if holder.get("token") == self._token:
                    self._generation, renewed = generation, time.monotonic()
                    continue
                message = f"{self._what} was taken over by {holder.get('owner')}"
            except FileNotFoundError:
                message = f"the lock of {self._what} was removed"
            except Exception as error:
                if time.monotonic() - renewed < STALE:
                    continue
                message = f"{self._what} cannot be reached for {STALE:.0f} s: {str(error) or 'no answer'}"
            if not self._over.is_set():
                self._lost(f"{message}; what was finished is kept, and the same command continues")
            return

    def release(self) -> None:
        self._over.set()
        self._thread.join(STALE / 3)
        with contextlib.suppress(Exception):  # it is stale soon enough
            objects.remove(self._file, self._generation)


@contextlib.contextmanager
def _lease(file: Path, what: str, lost: Callable[[str], object]) -> Iterator[Callable[[], None]]:
    lease = _Lease(file, what, lost)
    lease.take()

    def touch() -> None:
        lease.signs += 1

    try:
        yield touch
    finally:
        lease.release()
