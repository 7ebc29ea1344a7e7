"""Batches of the latent cache: both views, and the same on any hosts and workers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from cached_latents import encode, identity_of, latent_batches, write

from fae_jax.data.batching import Reading
from fae_jax.data.sources.digits import DigitsSource
from fae_jax.data.stores.latent_loader import LatentLoader
from fae_jax.data.stores.latents import open_cache

Check = Callable[..., None]


def test_latent_batches_name_what_they_hold_and_use_both_views(cache: Path, digits: DigitsSource) -> None:
    batches = latent_batches(cache, digits, 30)
    twins = 0
    for batch in batches:
        images = np.stack([digits[int(index)]["image"] for index in batch["index"]])
        as_is, mirrored = (encode_any(view).astype(ml_dtypes.bfloat16) for view in (images, images[:, :, ::-1]))
        plain = (batch["mean"] == as_is).all((1, 2))
        assert (plain | (batch["mean"] == mirrored).all((1, 2))).all()
        np.testing.assert_array_equal(batch["label"], digits.labels[batch["index"]])
        twins += (~plain).sum()
    assert 290 < twins < 430
    everything = np.concatenate([batch["index"] for batch in batches])[:359]
    assert len(np.unique(everything)) == 359


def encode_any(images: np.ndarray) -> np.ndarray:
    padded = np.concatenate([images, images])[:32]
    return np.concatenate([encode(part)[0] for part in np.split(padded, 2)])[: len(images)]


@pytest.mark.parametrize("hosts", [2, 4, 8])
def test_hosts_change_no_latent(cache: Path, digits: DigitsSource, hosts: int, assert_equal: Check) -> None:
    parts = [latent_batches(cache, digits, 20, host=host, hosts=hosts) for host in range(hosts)]
    whole = [{key: np.concatenate([part[i][key] for part in parts]) for key in parts[0][0]} for i in range(20)]
    assert_equal(whole, latent_batches(cache, digits, 20))


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_and_seeking_change_no_latent(
    cache: Path, digits: DigitsSource, workers: int, assert_equal: Check
) -> None:
    expected = latent_batches(cache, digits, 25)
    assert_equal(latent_batches(cache, digits, 6, start=19, reading=Reading(workers=workers)), expected[19:])
    assert_equal(latent_batches(cache, digits, 3, start=11), expected[11:14])


def test_flips_need_twins(digits: DigitsSource, tmp_path: Path) -> None:
    identity = identity_of(digits, flip=False)
    write(tmp_path, digits, identity=identity)
    source = open_cache(tmp_path, identity)
    assert source.header.views == 1
    with pytest.raises(ValueError, match="without mirrored twins"):
        LatentLoader(source=source, batch=8, seed=0, flip=True)
    with LatentLoader(source=source, batch=8, seed=0, flip=False).at(3) as iterator:
        assert next(iterator)["mean"].shape == (8, 16, 5)


class Captioned(DigitsSource):
    """Digits with two captions each."""

    captioned = True

    def __getitem__(self, position: int) -> dict[str, Any]:
        element = super().__getitem__(position)
        return element | {"captions": (f"a {element['label']}", f"größe {position}")}


def test_captions_go_through_the_cache_and_are_drawn_and_dropped(tmp_path: Path, assert_equal: Check) -> None:
    source = Captioned(split="heldout", holdout=0.2, seed=0)
    identity = identity_of(source)
    write(tmp_path, source, identity=identity)
    cache = open_cache(tmp_path, identity)

    def batches(first: int = 0, **options: Any) -> list[dict[str, np.ndarray]]:
        loader = LatentLoader(source=cache, batch=32, seed=1, flip=True, caption_dropout=0.2, **options)
        with loader.at(first) as iterator:
            return [next(iterator) for _ in range(first, 30)]

    expected = batches()
    drawn = [
        (str(text), int(label), int(index))
        for batch in expected
        for text, label, index in zip(batch["caption"], batch["label"], batch["index"], strict=True)
    ]
    assert all(text in ("", f"a {label}", f"größe {index}") for text, label, index in drawn)
    sized, named = (sum(text.startswith(start) for text, _, _ in drawn) for start in ("größe", "a "))
    assert abs(sized - 384) < 60 and abs(named - 384) < 60
    parts = [batches(host=host, hosts=2) for host in range(2)]
    assert_equal([{k: np.concatenate([p[i][k] for p in parts]) for k in expected[0]} for i in range(30)], expected)
    assert_equal(batches(first=17), expected[17:])  # as a run goes on that was stopped there
    for batch, sizes in zip(
        expected, batches(read=lambda texts: {"size": np.array([*map(len, texts)])}), strict=True
    ):
        assert "caption" not in sizes
        np.testing.assert_array_equal(sizes["size"], [len(text) for text in batch["caption"]])
