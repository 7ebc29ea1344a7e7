"""Mixtures: parts by weight, each shuffled by itself, the same on any hosts, workers and after seeking."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fae_jax.data.batching import Reading
from fae_jax.data.decode import BadImage
from fae_jax.data.loader import Loader
from fae_jax.data.sources.digits import DigitsSource
from fae_jax.data.sources.folder import FolderSource
from fae_jax.data.sources.mixture import Mixture
from fae_jax.data.stores.latent_loader import LatentLoader
from fae_jax.data.stores.latent_writer import write_cache
from fae_jax.data.stores.latents import CacheIdentity, open_cache


@pytest.fixture(scope="module")
def mixture(photographs: Path, digits: DigitsSource) -> Mixture:
    return Mixture([FolderSource(str(photographs), split="train", holdout=0.0, seed=0), digits], [1, 3])


def batches(source: Any, steps: int, start: int = 0, **options: Any) -> list[dict[str, np.ndarray]]:
    chosen = {"source": source, "batch": 16, "seed": 2, "image_size": 32, "flip": False, **options}
    with Loader(**chosen).at(start) as iterator:
        return [next(iterator) for _ in range(steps)]


def test_it_is_its_parts_one_after_the_other(mixture: Mixture, digits: DigitsSource) -> None:
    assert len(mixture) == 39 + 359 and mixture.classes == ("cat", "dog", "eel", *"0123456789")
    element = mixture[39 + 5]
    assert element["label"] == digits.labels[5] + 3 and element["index"] == 44
    np.testing.assert_array_equal(element["image"], digits[5]["image"])


def test_parts_come_by_weight_and_in_epochs_of_their_own(mixture: Mixture) -> None:
    index = np.concatenate([batch["index"] for batch in batches(mixture, 60)])
    first, second = index[index < 39], index[index >= 39]
    assert abs(len(first) / len(index) - 0.25) < 0.005
    for block in index.reshape(-1, 48):
        assert abs((block < 39).sum() - 12) <= 1
    for epoch in range(len(first) // 39):
        assert len(set(first[epoch * 39 : (epoch + 1) * 39].tolist())) == 39
    assert len(set(second[:359].tolist())) == 359


def test_hosts_workers_and_seeking(mixture: Mixture, assert_equal: Callable[..., None]) -> None:
    expected = batches(mixture, 12)
    parts = [batches(mixture, 12, host=host, hosts=4) for host in range(4)]
    assert_equal([{k: np.concatenate([p[i][k] for p in parts]) for k in expected[0]} for i in range(12)], expected)
    assert_equal(batches(mixture, 3, start=9, reading=Reading(workers=2)), expected[9:])


def test_the_cache_of_a_mixture_is_drawn_from_by_weight(
    mixture: Mixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, assert_equal: Callable[..., None]
) -> None:
    def encode(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean = images.reshape(len(images), 4, -1)[..., :2].astype(np.float32)
        return mean, mean / 300

    def getitem(source: Mixture, position: int) -> Any:
        if position in (0, 3, 38):
            raise BadImage(f"{position} is broken")
        return original(source, position)

    original = Mixture.__getitem__
    monkeypatch.setattr(Mixture, "__getitem__", getitem)
    known = {"encoder": "e", "encoder_weights": "w", "compressor": "c", "flip": True, "image_size": 32}
    identity = CacheIdentity(source=mixture.fingerprint, **known)
    write_cache(tmp_path, identity, mixture, encode, batch=8, shard_size=100)
    cache = open_cache(tmp_path, identity)

    def latents(steps: int, start: int = 0, **options: Any) -> list[dict[str, np.ndarray]]:
        chosen = {"source": cache, "batch": 16, "seed": 2, "flip": True, "mixture": mixture, **options}
        with LatentLoader(**chosen).at(start) as iterator:
            return [next(iterator) for _ in range(steps)]

    expected = latents(60)
    index = np.concatenate([batch["index"] for batch in expected])
    first = index[index < 39]
    assert abs(len(first) / len(index) - 0.25) < 0.005
    for epoch in range(len(first) // 36):
        assert set(first[epoch * 36 : (epoch + 1) * 36].tolist()) == set(range(39)) - {0, 3, 38}
    parts = [latents(60, host=host, hosts=4) for host in range(4)]
    assert_equal([{k: np.concatenate([p[i][k] for p in parts]) for k in expected[0]} for i in range(60)], expected)
    assert_equal(latents(4, start=50, reading=Reading(workers=1)), expected[50:54])


def test_parts_with_the_same_classes_share_labels(digits: DigitsSource) -> None:
    train = DigitsSource(split="train", holdout=0.2, seed=0)
    both = Mixture([train, digits], [1, 1])
    assert both.classes == digits.classes and both[len(train)]["label"] == digits.labels[0]
    assert both.fingerprint != Mixture([train, digits], [1, 2]).fingerprint


def test_requests_that_cannot_be_met(digits: DigitsSource) -> None:
    for weights in ([1], [1, 0], [1, -2]):
        with pytest.raises(ValueError, match="needs as many weights above 0"):
            Mixture([digits, digits], weights)
    captioned = DigitsSource(split="train", holdout=0.2, seed=0)
    captioned.captioned = True
    with pytest.raises(ValueError, match="with captions and sources without"):
        Mixture([digits, captioned], [1, 1])
