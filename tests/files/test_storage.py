"""Files by path, pattern and range, here and in a bucket, with the same answers."""

import os
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from fae_jax.files import storage


@pytest.fixture(params=["local", "memory", "gs"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A folder with four shards and a note, on disk or in a bucket."""
    for number in (0, 1, 2, 10):
        (tmp_path / f"s-{number:04d}.tar").write_bytes(bytes(range(number, number + 50)))
    (tmp_path / "note.txt").write_text("note")
    if request.param == "local":
        yield str(tmp_path)
        return
    if request.param == "gs":
        bucket = request.getfixturevalue("bucket")
        storage.filesystem(bucket).put(f"{tmp_path}/", f"{bucket}/shards/", recursive=True)
        yield f"{bucket}/shards"
        return
    bucket = fsspec.filesystem("memory")
    bucket.put(str(tmp_path), "/storage/shards", recursive=True)
    yield "memory://storage/shards"
    bucket.rm("/storage", recursive=True)


def names(path: str) -> list[str]:
    return [file.name for file in storage.find_files(path, (".tar",))]


def test_folders_files_and_patterns(root: str) -> None:
    every = ["s-0000.tar", "s-0001.tar", "s-0002.tar", "s-0010.tar"]
    assert names(root) == names(f"{root}/*.tar") == every
    assert names(f"{root}/s-0001.tar") == ["s-0001.tar"]
    assert names(f"{root}/s-{{0000..0002}}.tar") == every[:3]
    assert names(f"{root}/s-00?0.tar") == ["s-0000.tar", "s-0010.tar"]
    assert all(file.size == 50 for file in storage.find_files(root, (".tar",)))


def test_what_is_not_there(root: str) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        names(f"{root}/nowhere")
    with pytest.raises(ValueError, match="holds no file that ends in .parquet"):
        storage.find_files(root, (".parquet",))
    with pytest.raises(ValueError, match="holds no file"):
        names(f"{root}/t-*.tar")


def test_ranges(root: str) -> None:
    path = f"{root}/s-0010.tar"
    assert storage.read_bytes(path) == bytes(range(10, 60))
    assert storage.read_bytes(path, 5, 3) == bytes([15, 16, 17])
    assert storage.read_bytes(path, 40) == bytes(range(50, 60))
    with pytest.raises(OSError, match="ends 7 bytes too early"):
        storage.read_bytes(path, 45, 12)
    with storage.open_file(path) as file:
        assert file.read() == bytes(range(10, 60))


def test_local_copies_are_made_once_per_version(
    root: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    path = f"{root}/s-0001.tar"
    copy = storage.local_copy(path)
    assert Path(copy).read_bytes() == storage.read_bytes(path)
    if storage.is_remote(root):
        inode = os.stat(copy).st_ino
        assert storage.local_copy(path) == copy and os.stat(copy).st_ino == inode
        storage.filesystem(path).pipe(path, b"another")
        assert Path(storage.local_copy(path)).read_bytes() == b"another"
    else:
        assert copy == path
