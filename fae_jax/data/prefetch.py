"""Batches put on the devices ahead of the step that reads them, a bounded number of them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any


class OnDevice(Iterator[Any]):
    """Applies `put` to batches in a thread of its own, at most `ahead` of the reader; closes what it reads from.

    Memory holds `ahead` batches on the devices, one on its way, and what the reader still uses: when the reader
    stops, so does the thread. An error of the source or of `put` is raised where its batch would have come.

    Args:
      batches: an iterator, closed at the end if it can be.
      put: host batch → device batch.
      ahead: batches that may wait on the devices.
    """

    def __init__(self, batches: Iterator[Any], put: Callable[[Any], Any], *, ahead: int = 2):
        if ahead < 1:
            raise ValueError(f"at least 1 batch is put on the devices ahead, got {ahead}")
        self._batches, self._put = batches, put
        self._ready: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue()
        self._room = threading.Semaphore(ahead)
        self._stop = threading.Event()
        self._ended: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="fae-on-device", daemon=True)
        self._thread.start()

    def __next__(self) -> Any:
        if self._ended is not None:
            raise self._ended
        batch, error = self._ready.get()
        if error is not None:
            self._ended = error
            raise error
        self._room.release()
        return batch

    def close(self) -> None:
        """Ends the thread and what it reads from; may be called twice."""
        self._stop.set()
        self._room.release()
        self._thread.join()
        while not self._ready.empty():
            self._ready.get()
        self._ended = self._ended or StopIteration()
        close = getattr(self._batches, "close", None)
        if close is not None:
            close()

    def __enter__(self) -> OnDevice:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _run(self) -> None:
        while True:
            self._room.acquire()
            if self._stop.is_set():
                return
            try:
                self._ready.put((self._put(next(self._batches)), None))
            except BaseException as error:  # handed to the reader
                self._ready.put((None, error))
                return
