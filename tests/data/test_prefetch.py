"""Device prefetch: order, bounded lead, errors in place, and nothing left running."""

import gc
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest

from fae_jax.data.loader import Loader
from fae_jax.data.prefetch import OnDevice
from fae_jax.data.sources.digits import DigitsSource


def test_batches_come_in_order_on_the_device(digits: DigitsSource) -> None:
    loader = Loader(source=digits, batch=8, seed=0, image_size=32, flip=False)
    with loader.at(0) as plain, OnDevice(loader.at(0), jax.device_put) as ahead:
        for _ in range(10):
            expected, batch = next(plain), next(ahead)
            assert all(isinstance(value, jax.Array) for value in batch.values())
            np.testing.assert_array_equal(batch["image"], expected["image"])
    assert not any(thread.name == "fae-on-device" for thread in threading.enumerate())


def wait_until(true: Any) -> None:
    limit = time.monotonic() + 10
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.005)


@pytest.mark.parametrize("ahead", [1, 3])
def test_the_lead_is_bounded(ahead: int) -> None:
    taken = []

    def endless() -> Iterator[int]:
        while True:
            taken.append(None)
            yield len(taken)

    with OnDevice(endless(), lambda batch: batch, ahead=ahead) as batches:
        wait_until(lambda: len(taken) == ahead)
        time.sleep(0.05)
        assert len(taken) == ahead
        assert [next(batches) for _ in range(5)] == [1, 2, 3, 4, 5]
        wait_until(lambda: len(taken) == 5 + ahead)
        time.sleep(0.05)
        assert len(taken) == 5 + ahead


def test_batches_are_let_go_of() -> None:
    class Batch:
        pass

    alive: list[weakref.ref[Batch]] = []

    def make() -> Iterator[Batch]:
        while True:
            batch = Batch()
            alive.append(weakref.ref(batch))
            yield batch
            del batch

    with OnDevice(make(), lambda batch: batch, ahead=2) as batches:
        for _ in range(200):
            next(batches)
        gc.collect()
        assert sum(reference() is not None for reference in alive) <= 4


def test_errors_come_where_their_batch_would_have() -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise OSError("disk gone")

    batches = OnDevice(failing(), lambda batch: batch)
    assert next(batches) == 1
    for _ in range(2):
        with pytest.raises(OSError, match="disk gone"):
            next(batches)
    batches.close()
    with OnDevice(iter([1, 2]), lambda batch: batch) as finite:
        assert list(finite) == [1, 2]
    with pytest.raises(ValueError, match="at least 1 batch"):
        OnDevice(iter([]), lambda batch: batch, ahead=0)
