"""From examples to batches: one host's rows of each, stacked, prepared ahead in threads or worker processes."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import grain
import numpy as np
from absl import flags

from fae_jax.errors import RunFailed

Batch = dict[str, np.ndarray]
SHARED = "/dev/shm"
LAST_POSITION = 2**62


class Batches(Iterator[Batch]):
    """An iterator of batches that owns threads or processes; close it, or use it in a `with` statement."""

    def __init__(self, dataset: grain.IterDataset, finish: Callable[[Batch], Batch] = lambda batch: batch):
        self._iterator, self._finish = iter(dataset), finish

    def __next__(self) -> Batch:
        """The next batch.

        Raises:
          RunFailed: a worker process was killed.
        """
        try:
            return self._finish(next(self._iterator))
        except RuntimeError as error:
            killed = re.search(r"terminated unexpectedly with exit code -(\d+)", str(error))
            if not killed:
                raise
            raise RunFailed(_death(int(killed[1]))) from error

    def close(self) -> None:
        """Ends its threads and processes; may be called twice."""
        self._iterator.close()

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def _death(number: int) -> str:
    """Why a worker was killed by a signal, as far as it tells, and what helps."""
    if number == signal.SIGBUS and os.path.isdir(SHARED):
        room = shutil.disk_usage(SHARED).total / 2**20
        return (
            f"a loader worker was killed by SIGBUS: {SHARED}, through which workers hand on batches, holds "
            f"{room:,.0f} MB, too little; make it larger (docker run --shm-size=8g; on Kubernetes mount an emptyDir "
            "of medium Memory there), or set --config.data.workers=0"
        )
    out = ", as happens where memory is full" if number == signal.SIGKILL else ""
    return (
        f"a loader worker was killed by {signal.Signals(number).name}{out}; set --config.data.workers to fewer, or "
        "to 0 to read in threads"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
    """How batches are prepared ahead; no field changes what is in them.

    Attributes:
      workers: processes; 0 prepares batches in threads of this process.
      threads: batches prepared at a time, in each worker.
      ahead: batches kept ready, in each worker; the bound on memory.
    """

    workers: int = 0
    threads: int = 2
    ahead: int = 4

    def __post_init__(self) -> None:
        for name, least in (("workers", 0), ("threads", 1), ("ahead", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")

    def batches(self, dataset: grain.MapDataset, finish: Callable[[Batch], Batch] = lambda batch: batch) -> Batches:
        """Iterates a data set whose elements are whole batches; `finish` is applied in this process."""
        options = grain.ReadOptions(num_threads=self.threads, prefetch_buffer_size=max(self.ahead, self.threads))
        iterable = dataset.to_iter_dataset(options)
        if self.workers:
            if not flags.FLAGS.is_parsed():  # Grain reads absl's flags, which only programs on absl parse
                flags.FLAGS.mark_as_parsed()
            iterable = iterable.mp_prefetch(
                grain.MultiprocessingOptions(num_workers=self.workers, per_worker_buffer_size=1)
            )
        return Batches(iterable, finish)


READ_AHEAD = Reading()


def check_batch(batch: int, host: int, hosts: int) -> int:
    """The rows of a global batch that one host holds.

    Raises:
      ValueError: the batch is empty or does not divide among the hosts, or there is no such host.
    """
    if batch < 1:
        raise ValueError(f"the global batch must be at least 1, got {batch}")
    if hosts < 1 or not 0 <= host < hosts:
        raise ValueError(f"host {host} of {hosts} does not exist; hosts are numbered from 0")
    if batch % hosts:
        raise ValueError(f"a global batch of {batch} does not divide among {hosts} hosts; make it a multiple")
    return batch // hosts


class Rows(grain.MapDataset):
    """Element i is one host's rows of global batch `first` + i, equations (1) and (4), stacked by key.

    Attributes:
      examples: a data set of single examples that any position may be asked of, later epochs included.
    """

    def __init__(self, examples: grain.MapDataset, *, batch: int, host: int, hosts: int, first: int):
        super().__init__(examples)
        self._batch, self._first = batch, first
        self._rows = check_batch(batch, host, hosts)
        self._offset = host * self._rows

    def __len__(self) -> int:
        return LAST_POSITION // self._batch - self._first

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self.slice(index)
        start = (self._first + index) * self._batch + self._offset
        return stack((self._parent[position] for position in range(start, start + self._rows)), self._rows)


def stack(examples: Iterable[dict[str, Any]], count: int) -> Batch:
    """`count` examples of equal shapes → one array per key.

    Images are copied one by one as they come, while they are in the processor's cache, and let go.

    Raises:
      ValueError: two differ in shape.
    """
    images: dict[str, np.ndarray] = {}
    others: dict[str, list[Any]] = {}
    keys: list[str] = []
    for row, example in enumerate(examples):
        keys = keys or list(example)
        for key, value in example.items():
            if np.ndim(value) != 3:
                others.setdefault(key, []).append(value)
                continue
            if key not in images:
                images[key] = np.empty((count, *value.shape), value.dtype)
            _copy(value, images[key][row])
    return {key: images[key] if key in images else np.stack(others[key]) for key in keys}


def _copy(image: np.ndarray, target: np.ndarray) -> None:
    """Copies (y, x, c) by whole pixels: of mirrored images, which are views, that takes half the time."""
    if image.shape != target.shape:
        raise ValueError(f"an image of shape {image.shape} is among images of {target.shape}")
    pixel = np.dtype((np.void, target.shape[-1] * target.itemsize))
    target.view(pixel)[...] = image.view(pixel)


def derived_seed(seed: int, purpose: str) -> int:
    """A 32-bit seed for one purpose, independent of those for others.

    Raises:
      ValueError: `seed` is negative.
    """
    if seed < 0:
        raise ValueError(f"the data seed must be at least 0, got {seed}")
    return int.from_bytes(hashlib.sha256(f"{seed}/{purpose}".encode()).digest()[:4], "little")
