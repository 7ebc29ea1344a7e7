"""Bad images: replaced by a fixed other on every host and worker, counted, named, limited; left out of caches."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fae_jax.data.batching import Reading
from fae_jax.data.loader import Loader, ordered_batches
from fae_jax.data.replacement import BadImages, Readable, TooManyBadImages
from fae_jax.data.sources.folder import FolderSource
from fae_jax.data.stores.latent_writer import write_cache
from fae_jax.data.stores.latents import CacheIdentity, open_cache

BAD = (3, 17, 18, 30)


@pytest.fixture(scope="module")
def folder(images: list, tmp_path_factory: pytest.TempPathFactory, repack: Any) -> FolderSource:
    """39 images, four of them broken each in its own way."""
    root = tmp_path_factory.mktemp("broken") / "data"
    repack("folder", images, root)
    source = FolderSource(str(root), split="train", holdout=0.0, seed=0)
    contents = [b"", b"<!DOCTYPE html><html></html>", images[18][2][:300], b"\x00" * 999]
    for position, content in zip(BAD, contents, strict=True):
        Path(source.name(position)).write_bytes(content)
    return source


def loader(source: Any, **options: Any) -> Loader:
    return Loader(**{"source": source, "batch": 8, "seed": 1, "image_size": 24, "flip": True, **options})


def batches(source: Any, steps: int, **options: Any) -> list[dict[str, np.ndarray]]:
    with loader(source, **options).at(0) as iterator:
        return [next(iterator) for _ in range(steps)]


def test_every_image_is_tried_before_it_is_said_that_none_can_be_decoded() -> None:
    readable = Readable.__new__(Readable)
    for count in (1, 2, 12, 18, 39, 64):
        readable.source = range(count)  # type: ignore[assignment] -- only its length is asked for
        for position in range(count):
            assert sorted(readable.candidates(position)) == list(range(count))


def test_replacements_are_good_fixed_and_of_the_image_shown(folder: FolderSource) -> None:
    replaced = {position: int(Readable(folder)[position]["index"]) for position in range(39)}
    assert {position for position, replacement in replaced.items() if position != replacement} == set(BAD)
    assert not set(replaced.values()) & set(BAD) and replaced == {
        position: int(Readable(folder)[position]["index"]) for position in range(39)
    }
    for position in BAD:
        replacement = Readable(folder)[position]
        np.testing.assert_array_equal(replacement["image"], folder[replaced[position]]["image"])
        assert replacement["label"] == folder[replaced[position]]["label"]


def test_batches_agree_and_hold_no_bad_image(folder: FolderSource, assert_equal: Callable[..., None]) -> None:
    expected = batches(folder, 10)
    assert set(expected[0]) == {"image", "label", "index"}
    assert not np.isin(np.concatenate([batch["index"] for batch in expected]), BAD).any()
    parts = [batches(folder, 10, host=host, hosts=2) for host in range(2)]
    assert_equal([{k: np.concatenate([p[i][k] for p in parts]) for k in expected[0]} for i in range(10)], expected)
    assert_equal(batches(folder, 10, reading=Reading(workers=2)), expected)
    assert_equal(batches(folder, 10, keep=0), expected)


@pytest.mark.parametrize("workers", [0, 1])
def test_each_is_counted_once_and_named(
    folder: FolderSource, tmp_path: Path, caplog: pytest.LogCaptureFixture, workers: int
) -> None:
    chosen = loader(folder, reading=Reading(workers=workers), bad_images=tmp_path / "log" / "bad.txt")
    with caplog.at_level(logging.WARNING, "fae_jax"), chosen.at(0) as iterator:
        for _ in range(20):
            next(iterator)
    assert set(chosen.bad.reasons) == set(BAD)
    lines = (tmp_path / "log" / "bad.txt").read_text().splitlines()
    assert sorted(lines) == sorted(chosen.bad.reasons.values()) and len(lines) == 4
    assert any("the file is empty" in line for line in lines) and any("web page" in line for line in lines)
    assert sum("left out" in record.message for record in caplog.records) == 4


def test_above_the_limit_the_run_stops(folder: FolderSource) -> None:
    with (
        pytest.raises(TooManyBadImages, match="4 images cannot be decoded, 3 are tolerated, the last: "),
        loader(folder, tolerate=3).at(0) as iterator,
    ):
        for _ in range(20):
            next(iterator)
    assert len(batches(folder, 20, tolerate=4)) == 20


def test_a_source_without_one_good_image_stops(tmp_path: Path) -> None:
    for label in "ab":
        (tmp_path / label).mkdir()
        for number in range(40):
            (tmp_path / label / f"{number}.jpg").write_bytes(b"")
    nothing = FolderSource(str(tmp_path), split="train", holdout=0.0, seed=0)
    with pytest.raises(TooManyBadImages, match="none of 64 images can be decoded"):
        batches(nothing, 1)


def test_a_pass_in_order_masks_them(folder: FolderSource) -> None:
    with ordered_batches(folder, batch=8, image_size=24) as iterator:
        whole = list(iterator)
    indices = np.concatenate([batch["index"][batch["mask"]] for batch in whole])
    assert sorted(set(range(39)) - set(indices.tolist())) == list(BAD) and len(whole) == 5
    with (
        pytest.raises(TooManyBadImages, match="3 images cannot be decoded, 2 are tolerated"),
        ordered_batches(folder, batch=8, image_size=24, bad=BadImages(folder, 2)) as iterator,
    ):
        list(iterator)


def test_caches_leave_them_out_and_say_so(folder: FolderSource, tmp_path: Path) -> None:
    def encode(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean = images.reshape(len(images), 4, -1)[..., :3].astype(np.float32)
        return mean, mean / 300

    known = {"encoder": "e", "encoder_weights": "w", "compressor": "c", "flip": True, "image_size": 24}
    identity = CacheIdentity(source=folder.fingerprint, **known)
    header = write_cache(tmp_path / "c", identity, folder, encode, batch=8, shard_size=10)
    assert header.images == 35 and [shard.images for shard in header.shards] == [9, 8, 10, 8]
    assert [len(shard.left_out) for shard in header.shards] == [1, 2, 0, 1]
    assert "the file is empty" in header.shards[0].left_out[0]
    cache = open_cache(tmp_path / "c", identity)
    indices = [int(cache[i]["index"]) for i in range(len(cache))]
    assert indices == [i for i in range(39) if i not in BAD]
    assert header.statistics.count == 2 * 4 * 35
    with pytest.raises(TooManyBadImages):
        write_cache(tmp_path / "d", identity, folder, encode, batch=8, shard_size=10, tolerate=2)
    assert (tmp_path / "d" / "shard-00000.array_record").exists()
