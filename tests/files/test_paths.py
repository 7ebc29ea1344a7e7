"""Paths as users give them, and what a bucket's server says when it does not do what it is asked."""

import sys
from pathlib import Path
from typing import Any

import pytest

from fae_jax.files import objects, storage
from fae_jax.files.paths import absolute, as_path
from fae_jax.files.writing import write_atomically


def test_home_is_expanded_and_a_bucket_stays_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bucket: Any):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert as_path("~/runs") == tmp_path / "runs" and as_path("runs") == Path("runs")
    assert str(absolute(as_path(str(bucket)) / "a")) == f"{bucket}/a" and absolute(Path("a")) == tmp_path / "a"


@pytest.mark.parametrize("path", ["", "s3://b/a", "gs://", "gs:///a", "http://b/a"])
def test_what_cannot_be_written_to_is_refused(path: str):
    with pytest.raises(ValueError, match="is empty|cannot be written to"):
        as_path(path)


def test_without_gcsfs_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch):
    from fae_jax.files.paths import _filesystem

    _filesystem.cache_clear()
    monkeypatch.delitem(sys.modules, "fae_jax.files.bucket", raising=False)
    monkeypatch.setitem(sys.modules, "gcsfs.core", None)
    with pytest.raises(ValueError, match=r"gs:// need the package gcsfs: pip install 'fae_jax\[gcs\]'"):
        as_path("gs://bucket-one/a")


def test_a_bucket_that_is_not_there(bucket_server: Any):
    place = as_path("gs://no-such-bucket/a")
    for ask in (lambda: objects.check_bucket(place), lambda: write_atomically(place, "text")):
        with pytest.raises(FileNotFoundError, match="bucket gs://no-such-bucket does not exist; make it first"):
            ask()


@pytest.mark.parametrize(
    ("status", "words"), [(403, "refuses this account; give it the role"), (401, "log in with `gcloud auth")]
)
def test_a_bucket_that_refuses_is_not_taken_for_an_empty_one(
    bucket: Any, bucket_server: Any, status: int, words: str
):
    write_atomically(bucket / "a", "text")
    bucket_server.answer_all_with(status)
    try:
        asks = (
            lambda: objects.check_bucket(bucket),
            lambda: (bucket / "a").exists(),
            bucket.is_dir,
            lambda: write_atomically(bucket / "a", "other"),
            lambda: storage.read_bytes(str(bucket / "a")),
        )
        for ask in asks:
            with pytest.raises(PermissionError, match=words):
                ask()
    finally:
        bucket_server.answer_all_with(200)
    assert (bucket / "a").read_text() == "text"


def test_a_server_that_is_gone_is_not_taken_for_an_empty_bucket(bucket: Any, monkeypatch: pytest.MonkeyPatch):
    async def at_once(seconds: float) -> None: ...

    monkeypatch.setattr("gcsfs.retry.asyncio.sleep", at_once)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr("fae_jax.files.bucket.Buckets._location", "http://127.0.0.1:1")
    for ask in ((bucket / "a").exists, bucket.is_dir, lambda: write_atomically(bucket / "a", "text")):
        with pytest.raises(ConnectionError, match="gs://bucket-one does not answer"):
            ask()
