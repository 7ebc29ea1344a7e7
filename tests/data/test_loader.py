"""Batch k is a function of (seed, k): hosts, workers, threads, restarts and memory change nothing, bitwise."""

import itertools
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from fae_jax.data.batching import Reading, stack
from fae_jax.data.loader import Loader, ordered, ordered_batches
from fae_jax.data.sources.folder import FolderSource
from fae_jax.data.transforms import adm_centre_crop
from fae_jax.errors import RunFailed

Check = Callable[..., None]


@pytest.fixture(scope="module")
def folder(photographs: Path) -> FolderSource:
    return FolderSource(str(photographs), split="train", holdout=0.0, seed=0)


def loader(source: Any, **options: Any) -> Loader:
    return Loader(**{"source": source, "batch": 8, "seed": 3, "image_size": 32, "flip": True, **options})


def batches(source: Any, steps: int, start: int = 0, **options: Any) -> list[dict[str, np.ndarray]]:
    with loader(source, **options).at(start) as iterator:
        return [next(iterator) for _ in range(steps)]


def global_batches(source: Any, steps: int, hosts: int, **options: Any) -> list[dict[str, np.ndarray]]:
    parts = [batches(source, steps, host=host, hosts=hosts, **options) for host in range(hosts)]
    return [
        {key: np.concatenate([part[step][key] for part in parts]) for key in parts[0][0]} for step in range(steps)
    ]


def test_stacked_is_what_numpy_stacks_mirrored_views_too_and_other_shapes_are_refused() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 5, 4, 3), np.uint8)
    views = [images[0], images[1][:, ::-1], images[2]]
    examples = [{"image": image, "label": np.int32(row)} for row, image in enumerate(views)]
    batch = stack(iter(examples), 3)
    np.testing.assert_array_equal(batch["image"], np.stack(views))
    np.testing.assert_array_equal(batch["label"], [0, 1, 2])
    assert list(batch) == ["image", "label"]
    examples[2]["image"] = images[2][:1]  # would fill all five rows if it were spread over them
    with pytest.raises(ValueError, match=r"shape \(1, 4, 3\) is among images of \(5, 4, 3\)"):
        stack(iter(examples), 3)


def test_batches_are_the_images_they_name(folder: FolderSource) -> None:
    flips = 0
    for batch in batches(folder, 12):
        assert batch["image"].shape == (8, 32, 32, 3) and batch["image"].dtype == np.uint8
        assert batch["label"].dtype == np.int32 and batch["index"].dtype == np.int64
        for image, label, index in zip(batch["image"], batch["label"], batch["index"], strict=True):
            element = folder[int(index)]
            cropped = adm_centre_crop(element["image"], 32)
            mirrored = not (image == cropped).all()
            flips += mirrored
            np.testing.assert_array_equal(image, cropped[:, ::-1] if mirrored else cropped)
            assert label == element["label"]
    assert 30 < flips < 66


@pytest.mark.parametrize("hosts", [2, 4, 8])
def test_hosts_change_nothing(folder: FolderSource, hosts: int, assert_equal: Check) -> None:
    assert_equal(global_batches(folder, 12, hosts), batches(folder, 12))


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(folder: FolderSource, workers: int, assert_equal: Check) -> None:
    assert_equal(batches(folder, 12, reading=Reading(workers=workers)), batches(folder, 12))


@pytest.mark.parametrize("reading", [Reading(threads=1, ahead=1), Reading(threads=7, ahead=9)])
def test_threads_change_nothing(folder: FolderSource, reading: Reading, assert_equal: Check) -> None:
    assert_equal(batches(folder, 12, reading=reading), batches(folder, 12))


def test_keeping_images_in_memory_changes_nothing(folder: FolderSource, assert_equal: Check) -> None:
    assert_equal(batches(folder, 12, keep=0), batches(folder, 12))


@pytest.mark.parametrize("step", [1, 7, 30])
def test_seeking_gives_the_batches_that_would_have_come(folder: FolderSource, step: int, assert_equal: Check) -> None:
    assert_equal(batches(folder, 3, start=step, hosts=2, host=1), batches(folder, step + 3, hosts=2, host=1)[step:])


class Deadly(FolderSource):
    """Whoever reads image 5 in a worker is killed."""

    def __getitem__(self, position: int) -> Any:
        if position == 5:
            os.kill(os.getpid(), signal.SIGBUS)
        return super().__getitem__(position)


def test_a_worker_that_is_killed_is_one_line(folder: FolderSource, photographs: Path) -> None:
    source = Deadly(str(photographs), split="train", holdout=0.0, seed=0)
    with pytest.raises(RunFailed, match=r"SIGBUS: /dev/shm, .* MB, too little; .*data.workers=0$"):
        batches(source, 12, reading=Reading(workers=1))


def test_seeking_in_worker_processes(folder: FolderSource, assert_equal: Check) -> None:
    assert_equal(batches(folder, 3, start=5, reading=Reading(workers=2)), batches(folder, 3, start=5))


def test_every_epoch_is_a_different_permutation(folder: FolderSource) -> None:
    seen = np.concatenate([batch["index"] for batch in batches(folder, 15, batch=13)]).reshape(5, 39)
    assert (np.sort(seen, axis=1) == np.arange(39)).all()
    assert len({tuple(epoch) for epoch in seen}) == 5
    assert abs(np.corrcoef(seen.ravel()[1:], seen.ravel()[:-1])[0, 1]) < 0.25


LAGS, BATCH, CLASSES = 256, 256, 1000


def deviates(orders: list[np.ndarray], count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Correlations of places within an order and between two, at all lags to `LAGS` in both directions, and of pairs
    of one class in a batch, each in its standard deviations of true permutations."""
    look = len(orders[0])
    spectra = [np.fft.rfft((order - (count - 1) / 2) / np.sqrt((count**2 - 1) / 12), 2 * look) for order in orders]
    left = np.sqrt(look - np.arange(LAGS + 1))  # pairs at each lag

    def at_lags(i: int, j: int) -> np.ndarray:
        return np.fft.irfft(spectra[i].conj() * spectra[j])[: LAGS + 1] / left

    pairs = itertools.combinations(range(len(orders)), 2)
    within = np.stack([at_lags(i, i)[1:] for i in range(len(orders))])
    between = np.concatenate([np.zeros(0), *(part for i, j in pairs for part in (at_lags(i, j), at_lags(j, i)[1:]))])
    sizes = np.bincount(np.arange(count) * CLASSES // count)
    chance = look // BATCH * BATCH * (BATCH - 1) / 2 * (sizes * (sizes - 1)).sum() / (count * (count - 1))
    together = []
    for order in orders:
        batches = (order * CLASSES // count)[: look // BATCH * BATCH].reshape(-1, BATCH)
        each = np.bincount((np.arange(len(batches))[:, None] * CLASSES + batches).ravel())
        together.append(((each * (each - 1) / 2).sum() - chance) / np.sqrt(chance))
    return within, between, np.array(together)


def surplus(deviates: np.ndarray) -> float:
    """By how many standard deviations the squares of so many normal deviates are too large in sum."""
    return ((deviates**2).sum() - deviates.size) / np.sqrt(2 * deviates.size)


@pytest.mark.parametrize(
    ("count", "look", "whole"),
    [
        (50_000, 2**13, False),
        pytest.param(50_000, 50_000, True, marks=pytest.mark.slow(seconds=4)),
        pytest.param(1_281_167, 2**17, True, marks=pytest.mark.slow(seconds=15)),
    ],
)
def test_the_order_is_as_good_as_chance(count: int, look: int, whole: bool) -> None:
    """Within four standard deviations of a true permutation, in sum over lags and for pairs of a class. At a single
    lag one of 2,307 deviates passes 4.5 in 64 seeds by chance; the largest is 3.7 ± .3 (docs/data.md)."""
    order = ordered(count, 7, None)
    first = np.array([order[place] for place in range(count if whole else look)])
    assert not whole or (np.bincount(first, minlength=count) == 1).all()
    later = [np.array([order[epoch * count + place] for place in range(look)]) for epoch in (1, 2)]
    within, between, together = deviates([first[:look], *later], count)
    assert within.size + between.size == 2307
    assert abs(surplus(within)) < 4 and abs(surplus(between)) < 4 and np.abs(together).max() < 4
    assert max(np.abs(within).max(), np.abs(between).max()) < 4.5


def test_four_rounds_as_grains_own_shuffle_has_them_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fae_jax.data.loader.ROUNDS", 4)
    order = ordered(50_000, 7, None)
    within, _, _ = deviates([np.array([order[place] for place in range(2**13)])], 50_000)
    assert surplus(within) > 40 and np.abs(within).max() > 8


def test_seeds_decide(folder: FolderSource) -> None:
    assert (batches(folder, 1, seed=4)[0]["index"] != batches(folder, 1)[0]["index"]).any()


def test_a_batch_larger_than_the_source(folder: FolderSource, assert_equal: Check) -> None:
    big = batches(folder, 2, batch=100)
    counts = np.bincount(np.concatenate([batch["index"] for batch in big])[: 39 * 5], minlength=39)
    assert (counts == 5).all() and big[0]["image"].shape[0] == 100
    assert_equal(global_batches(folder, 2, 4, batch=100), big)


def test_iterators_leave_nothing_behind(folder: FolderSource) -> None:
    process = psutil.Process()
    before = {child.pid for child in process.children(recursive=True)}
    batches(folder, 2, reading=Reading(workers=2))
    for child in process.children(recursive=True):
        if child.pid not in before and "resource_tracker" not in " ".join(child.cmdline()):
            child.wait(timeout=10)
    iterator = loader(folder).at(0)
    next(iterator)
    iterator.close()
    iterator.close()
    for thread in threading.enumerate():
        if thread.name.startswith("grain-prefetch"):
            thread.join(timeout=10)
            assert not thread.is_alive()


class Nothing(FolderSource):
    classes, fingerprint = (), ""

    def __len__(self) -> int:
        return 0


def test_requests_that_cannot_be_met(folder: FolderSource) -> None:
    for message, options in [
        ("does not divide among 3 hosts", {"hosts": 3}),
        ("host 2 of 2 does not exist", {"hosts": 2, "host": 2}),
        ("at least 1, got 0", {"batch": 0}),
    ]:
        with pytest.raises(ValueError, match=message):
            loader(folder, **options)
    with pytest.raises(ValueError, match="a step is at least 0"):
        loader(folder).at(-1)
    with pytest.raises(ValueError, match="seed must be at least 0"):
        loader(folder, seed=-1).at(0)
    with pytest.raises(ValueError, match="threads must be at least 1, got 0"):
        Reading(threads=0)
    with pytest.raises(ValueError, match="no images"):
        loader(Nothing.__new__(Nothing))


def test_a_pass_in_order_with_its_last_batch_masked(folder: FolderSource, assert_equal: Check) -> None:
    with ordered_batches(folder, batch=16, image_size=32) as iterator:
        whole = list(iterator)
    assert [batch["mask"].sum() for batch in whole] == [16, 16, 7]
    kept = np.concatenate([batch["index"][batch["mask"]] for batch in whole])
    np.testing.assert_array_equal(kept, np.arange(39))
    np.testing.assert_array_equal(whole[1]["image"][3], adm_centre_crop(folder[19]["image"], 32))
    parts = []
    for host in range(4):
        with ordered_batches(folder, batch=16, image_size=32, host=host, hosts=4) as iterator:
            parts.append(list(iterator))
    assert_equal([{k: np.concatenate([p[i][k] for p in parts]) for k in whole[0]} for i in range(3)], whole)


def test_part_of_a_pass(folder: FolderSource) -> None:
    with ordered_batches(folder, batch=4, image_size=32, start=30, stop=36) as iterator:
        part = list(iterator)
    assert np.concatenate([batch["index"][batch["mask"]] for batch in part]).tolist() == [30, 31, 32, 33, 34, 35]
    with ordered_batches(folder, batch=4, image_size=32, start=39) as iterator:
        assert list(iterator) == []
