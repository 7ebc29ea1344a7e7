"""The latent cache: what is stored, resuming after a kill, refusing what is of something else."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from cached_latents import encode, identity_of, latent_batches, write
from damage import flipped

from fae_jax.data.sources.digits import DigitsSource
from fae_jax.data.stores.disk_space import bytes_to_write, check_room
from fae_jax.data.stores.latent_check import check_cache
from fae_jax.data.stores.latent_loader import LatentLoader
from fae_jax.data.stores.latent_writer import wait_for_hosts
from fae_jax.data.stores.latents import (
    open_cache,
    pack,
    planned_bytes,
    read_header,
    unpack,
)

Check = Callable[..., None]
ROOT = str(Path(__file__).parents[3])


def test_every_image_and_twin_is_stored_in_bfloat16(cache: Path, digits: DigitsSource) -> None:
    source = open_cache(cache, identity_of(digits))
    assert len(source) == len(digits) and len(source.header.shards) == 4 and source.classes == digits.classes
    images = np.stack([digits[i]["image"] for i in range(16)])
    for view, images_seen in enumerate([images, images[:, :, ::-1]]):
        mean, log_variance = encode(images_seen)
        batch = source.read(range(16), [view] * 16)
        np.testing.assert_array_equal(batch["mean"], mean.astype(ml_dtypes.bfloat16))
        np.testing.assert_array_equal(batch["log_variance"], log_variance.astype(ml_dtypes.bfloat16))
        np.testing.assert_array_equal(batch["label"], digits.labels[:16])
        np.testing.assert_array_equal(batch["index"], np.arange(16))
    last = source[len(source) - 1]
    assert last["index"] == len(digits) - 1 and last["label"] == digits.labels[-1] and last["mean"].shape == (16, 5)


def test_statistics_are_those_of_all_stored_values(cache: Path, digits: DigitsSource) -> None:
    source = open_cache(cache, identity_of(digits))
    everything = [source.read(range(len(source)), [view] * len(source)) for view in (0, 1)]
    mean = np.concatenate([part["mean"] for part in everything]).astype(np.float64).reshape(-1, 5)
    log_variance = np.concatenate([part["log_variance"] for part in everything]).astype(np.float64).reshape(-1, 5)
    statistics = source.header.statistics
    assert statistics.count == 2 * 16 * len(digits)
    np.testing.assert_allclose(statistics.mean, mean.mean(0), rtol=1e-10)
    np.testing.assert_allclose(statistics.variance, mean.var(0) + np.exp(log_variance).mean(0), rtol=1e-10)
    written = json.loads((cache / "header.json").read_text())
    assert written["statistics"]["variance"] == statistics.variance.tolist()
    assert written["bytes"] == sum(path.stat().st_size for path in cache.glob("*.array_record"))


def test_its_size_is_known_before(cache: Path, digits: DigitsSource) -> None:
    assert round(planned_bytes(1_281_167, (256, 32), True) / 1e9, 1) == 84.0
    values = np.zeros((16, 5), ml_dtypes.bfloat16)
    assert planned_bytes(len(digits), (16, 5), True) == 2 * len(digits) * len(pack(values, values, label=0, index=0))


def wait(directory: Path, source: Any, **options: Any) -> Any:
    return wait_for_hosts(directory, identity_of(source), source, shard_size=100, hosts=2, **options)


def test_hosts_write_the_same_cache_and_wait_for_each_other(
    cache: Path, digits: DigitsSource, tmp_path: Path
) -> None:
    assert write(tmp_path / "c", digits, host=0, hosts=2) is None
    with pytest.raises(FileNotFoundError, match="is not finished"):
        read_header(tmp_path / "c")
    with pytest.raises(OSError, match="host 1 of 2 has written nothing to .* for 0.1 seconds; see what it said"):
        wait(tmp_path / "c", digits, patience=0.1, every=0.02)

    def slow(images: np.ndarray) -> Any:
        time.sleep(0.1)  # all of it takes longer than the other's patience, each batch does not
        return encode(images)

    other = threading.Thread(
        target=write, args=(tmp_path / "c", digits), kwargs={"encode": slow, "host": 1, "hosts": 2}
    )
    other.start()
    assert wait(tmp_path / "c", digits, patience=1.0, every=0.02).to_json() == read_header(cache).to_json()
    other.join()


def odd_batches(images: np.ndarray) -> Any:
    return tuple(part[: len(images)] for part in encode(np.concatenate([images, images])[:16]))


def test_no_bit_of_the_statistics_depends_on_batches(cache: Path, digits: DigitsSource, tmp_path: Path) -> None:
    def any_batch(images: np.ndarray) -> Any:
        parts = [odd_batches(images[start : start + 8]) for start in range(0, len(images), 8)]
        return tuple(np.concatenate(part) for part in zip(*parts, strict=True))

    assert write(tmp_path, digits, encode=any_batch, batch=24).to_json() == read_header(cache).to_json()


def test_every_record_can_be_checked(cache: Path, digits: DigitsSource, tmp_path: Path) -> None:
    check_cache(open_cache(cache, identity_of(digits)))
    shutil.copytree(cache, tmp_path / "c")
    shard = tmp_path / "c" / "shard-00001.array_record"
    whole = shard.read_bytes()
    held = read_header(cache).shards[0].images + 17
    record = open_cache(cache, identity_of(digits)).read([held], [1])
    values = whole.index(record["mean"].tobytes() + record["log_variance"].tobytes())
    for place in (values - 6, values, values + 300):  # in its label, and in both of its parts
        shard.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(
            ValueError, match="shard-00001.array_record is damaged: .*; remove it and run `fae cache`"
        ):
            check_cache(open_cache(tmp_path / "c", identity_of(digits)))
    shard.write_bytes(whole)
    check_cache(open_cache(tmp_path / "c", identity_of(digits)))
    header = read_header(tmp_path / "c")
    header.shards[2].statistics.mean[0] += 1e-12
    (tmp_path / "c" / "header.json").write_text(json.dumps(header.to_json()))
    with pytest.raises(ValueError, match="shard-00002.array_record is damaged: its statistics are not those"):
        check_cache(open_cache(tmp_path / "c", identity_of(digits)))


def test_a_cache_in_a_bucket_is_the_one_on_a_disk(
    cache: Path,
    digits: DigitsSource,
    bucket: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    assert_equal: Check,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=f"latent cache {bucket} does not exist"):
        open_cache(bucket, identity_of(digits))
    assert write(bucket, digits, host=0, hosts=2) is None
    left = bytes_to_write(str(bucket), identity_of(digits), 359, (16, 5))
    assert left == round(1.01 * planned_bytes(159, (16, 5), True))
    with pytest.raises(OSError, match="host 1 of 2 has written nothing to"):
        wait(bucket, digits, patience=0.1, every=0.02)
    write(bucket, digits, host=1, hosts=2)
    assert wait(bucket, digits, patience=0.1, every=0.02).to_json() == read_header(cache).to_json()
    for name in ("header.json", *(shard.file for shard in read_header(cache).shards)):
        assert (bucket / name).read_bytes() == (cache / name).read_bytes()
    with LatentLoader(source=open_cache(bucket, identity_of(digits)), batch=24, seed=7, flip=True).at(3) as iterator:
        assert_equal([next(iterator) for _ in range(4)], latent_batches(cache, digits, 4, start=3))
    (bucket / "shard-00001.array_record").unlink()
    with pytest.raises(FileNotFoundError, match="shard gs://.*shard-00001.array_record .* is missing"):
        open_cache(bucket, identity_of(digits))
    assert write(bucket, digits).to_json() == read_header(cache).to_json()
    open_cache(bucket, identity_of(digits))


def test_room_is_known_before(cache: Path, digits: DigitsSource, tmp_path: Path) -> None:
    identity, asked = identity_of(digits), ("the latent cache of 359 images", "clear it")
    planned = planned_bytes(359, (16, 5), True)
    assert bytes_to_write(str(tmp_path / "new"), identity, 359, (16, 5)) == round(1.01 * planned)
    assert bytes_to_write(str(cache), identity, 359, (16, 5)) == 0
    write(tmp_path / "half", digits, host=0, hosts=2)
    left = bytes_to_write(str(tmp_path / "half"), identity, 359, (16, 5))
    assert left == round(1.01 * planned_bytes(159, (16, 5), True))  # shards 0 and 2, of 100, are there
    assert check_room(str(tmp_path / "a" / "b"), 10**6, *asked).startswith("1.00 MB to write to ")
    with pytest.raises(ValueError, match=r"of 359 images takes 1,000,000,000.00 GB more in .*free; clear it"):
        check_room(str(tmp_path / "a"), 10**18, *asked)
    assert check_room("gs://bucket/latents", 10**6, *asked) == "1.00 MB to write to gs://bucket/latents"
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="file is a file; name a folder"):
        check_room(str(tmp_path / "file" / "c"), 1, *asked)


def test_finished_shards_are_kept_and_others_redone(digits: DigitsSource, tmp_path: Path) -> None:
    calls = []

    def failing(images: np.ndarray) -> Any:
        calls.append(len(images))
        if len(calls) > 30:
            raise KeyboardInterrupt
        return encode(images)

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, digits, encode=failing)
    kept = sorted(path.name for path in tmp_path.glob("*.array_record*"))
    assert kept == ["shard-00000.array_record", "shard-00001.array_record"]
    stamp = (tmp_path / kept[0]).stat().st_mtime_ns
    seen = []
    header = write(tmp_path, digits, progress=lambda done, total: seen.append((done, total)))
    assert (tmp_path / kept[0]).stat().st_mtime_ns == stamp
    assert header.images == len(digits) and seen[0] == (200, 359) and seen[-1] == (359, 359)

    def never(images: np.ndarray) -> Any:
        raise AssertionError("all is done")

    assert write(tmp_path, digits, encode=never).to_json() == header.to_json()
    (tmp_path / "shard-00002.array_record").write_bytes(b"cut")
    assert write(tmp_path, digits).to_json() == header.to_json()


def test_a_killed_writer_is_taken_up(cache: Path, digits: DigitsSource, tmp_path: Path) -> None:
    program = f"""
        import sys, time
        from cached_latents import encode, write
        from fae_jax.data.sources.digits import DigitsSource

        def slow(images):
            time.sleep(0.02)
            return encode(images)

        write({str(tmp_path / "c")!r}, DigitsSource(split="heldout", holdout=0.2, seed=0), encode=slow)
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([ROOT, *sys.path])}
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], env=environment)
    waited = time.monotonic()
    while not (tmp_path / "c" / "shard-00001.array_record.part").exists():
        assert process.poll() is None and time.monotonic() - waited < 60
        time.sleep(0.005)
    with pytest.raises(ValueError, match=f"is in use by process {process.pid}"):
        write(tmp_path / "c", digits)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    header = write(tmp_path / "c", digits)
    assert header.to_json() == read_header(cache).to_json()
    for shard in header.shards:
        assert (tmp_path / "c" / shard.file).read_bytes() == (cache / shard.file).read_bytes()


def test_a_full_disk_stops_it_and_leaves_what_was_finished(digits: DigitsSource, tmp_path: Path) -> None:
    program = f"""
        import resource, signal
        from cached_latents import write
        from fae_jax.data.sources.digits import DigitsSource

        source = DigitsSource(split="heldout", holdout=0.2, seed=0)
        write({str(tmp_path)!r}, source)
    """
    write(tmp_path, digits, host=0, hosts=2)
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (50000, 50000))\n"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([ROOT, *sys.path])}
    ended = subprocess.run(
        [sys.executable, "-c", limit + textwrap.dedent(program)], env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 1 and "cannot be written" in ended.stderr.splitlines()[-1]
    left = sorted(path.name for path in tmp_path.glob("*.array_record*"))
    assert left == ["shard-00000.array_record", "shard-00002.array_record"]
    assert write(tmp_path, digits).images == len(digits)


def test_a_cache_of_something_else_is_refused_field_by_field(cache: Path, digits: DigitsSource) -> None:
    other = identity_of(digits, encoder_weights="cc", encoder_settings={"positions": "bilinear"})
    with pytest.raises(ValueError) as caught:
        open_cache(cache, other)
    message = str(caught.value)
    assert (
        "encoder_weights: 'aa' here, 'cc' wanted" in message
        and "'bilinear'" in message
        and "compressor" not in message
    )
    assert "\n" not in message
    with pytest.raises(ValueError, match="was begun with"):
        write(cache, digits, identity=other)


def test_every_field_of_the_identity_changes_its_hash(digits: DigitsSource) -> None:
    base = identity_of(digits)
    changed = {"flip": False, "image_size": 64, "encoder_settings": {}, "format": 99}
    hashes = {
        dataclasses.replace(base, **{field.name: changed.get(field.name, "other")}).hash
        for field in dataclasses.fields(base)
    }
    assert len(hashes | {base.hash}) == len(dataclasses.fields(base)) + 1


def test_damage_is_named(digits: DigitsSource, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_header(tmp_path / "none")
    write(tmp_path / "c", digits)
    shard = tmp_path / "c" / "shard-00001.array_record"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(ValueError, match="shard-00001.array_record has .* bytes, its header says"):
        open_cache(tmp_path / "c", identity_of(digits))
    shard.unlink()
    with pytest.raises(FileNotFoundError, match="shard-00001.array_record .* is missing"):
        open_cache(tmp_path / "c", identity_of(digits))
    (tmp_path / "c" / "header.json").write_text("{}")
    with pytest.raises(ValueError, match="header .* cannot be read"):
        read_header(tmp_path / "c")


def test_one_flipped_bit_is_noticed_or_changes_nothing(cache: Path, digits: DigitsSource, tmp_path: Path) -> None:
    copy, rng = tmp_path / "cache", np.random.default_rng(0)
    shutil.copytree(cache, copy)
    whole, count, noticed = read_header(cache), len(digits), 0
    everything = [*range(count)] * 2, [0] * count + [1] * count
    before = open_cache(cache, identity_of(digits)).read(*everything)
    for number in range(60):
        file = copy / ("header.json" if number < 30 else f"shard-{number % 4:05d}.array_record")
        content = file.read_bytes()
        file.write_bytes(flipped(content, rng))
        try:
            source = open_cache(copy, identity_of(digits))
            assert source.header.to_json() == whole.to_json()
            read = source.read(*everything)
            assert all(np.array_equal(read[name], before[name]) for name in before)
        except (ValueError, OSError) as error:
            assert "\n" not in str(error)
            noticed += 1
        file.write_bytes(content)
    assert noticed > 30  # shards are padded to whole blocks


def test_an_encoder_that_gives_nan_is_refused(digits: DigitsSource, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not all finite in the batch that begins with image 0"):
        write(tmp_path, digits, encode=lambda images: (encode(images)[0] * np.nan, encode(images)[1]))
    with pytest.raises(ValueError, match="is not the one of the cache's identity"):
        write(tmp_path, digits, identity=identity_of(digits, source="other"))


def test_records_carry_captions() -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3).astype(ml_dtypes.bfloat16)
    records = [pack(values, -values, label=-1, index=2**40 + i, captions=[f"größe {i}", "b\udce9"]) for i in range(2)]
    batch = unpack([*records, pack(values, values, label=5, index=0)], (2, 3))
    assert [json.loads(text) for text in batch["captions"]] == [["größe 0", "b\udce9"], ["größe 1", "b\udce9"], []]
    assert batch["index"].tolist() == [2**40, 2**40 + 1, 0] and batch["label"].tolist() == [-1, -1, 5]
    np.testing.assert_array_equal(batch["log_variance"][0], -values)
