"""What is tried again, how often, and what never is."""

import errno
import os
from pathlib import Path

import pytest

from fae_jax.files import storage
from fae_jax.files.retry import is_passing, retried
from fae_jax.files.writing import write_atomically


class BucketError(Exception):
    def __init__(self, **about: object):
        super().__init__("the bucket answered")
        for name, value in about.items():
            setattr(self, name, value)


def caused_by(outer: Exception, inner: Exception) -> Exception:
    outer.__cause__ = inner
    return outer


PASSING = [
    OSError(errno.EIO, "Input/output error"),
    OSError(errno.ESTALE, "Stale file handle"),
    TimeoutError("read timed out"),
    ConnectionResetError(),
    BucketError(status=503),
    BucketError(code="429"),
    BucketError(response=BucketError(status_code=500)),
    caused_by(RuntimeError("saving failed"), OSError(errno.EIO, "Input/output error")),
    ValueError(f"kvstore: writing block: {os.strerror(errno.ESTALE)} [path]"),
]
LASTING = [
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EDQUOT, "Disk quota exceeded"),
    OSError(errno.EROFS, "Read-only file system"),
    PermissionError(errno.EACCES, "Permission denied"),
    FileNotFoundError(errno.ENOENT, "No such file or directory"),
    BucketError(status=403),
    BucketError(status=404),
    ValueError("a shape does not fit"),
    # A disk that is full stays full, whatever else went wrong on the way.
    caused_by(TimeoutError("commit timed out"), OSError(errno.ENOSPC, "No space left on device")),
    caused_by(ConnectionResetError(), ValueError(f"writing block: {os.strerror(errno.ENOSPC)}")),
]


@pytest.mark.parametrize(
    ("error", "passes"), [*((e, True) for e in PASSING), *((e, False) for e in LASTING)], ids=repr
)
def test_only_errors_of_a_moment_pass(error: Exception, passes: bool):
    assert is_passing(error) == passes


def failing(times: int, error: Exception) -> tuple[object, list[int]]:
    calls: list[int] = []

    def call() -> str:
        calls.append(1)
        if len(calls) <= times:
            raise error
        return "done"

    return call, calls


def test_it_is_tried_again_with_a_line_each_and_gives_up_with_the_error(capsys: pytest.CaptureFixture[str]):
    call, calls = failing(2, OSError(errno.EIO, "Input/output error"))
    assert retried(call, "reading a", first=0.001) == "done" and len(calls) == 3
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 and said[0].startswith("warning: reading a: [Errno 5] Input/output error; attempt 2 of 5")
    call, calls = failing(9, TimeoutError("no answer"))
    with pytest.raises(TimeoutError, match="no answer"):
        retried(call, "reading a", first=0.001)
    assert len(calls) == 5


def test_a_full_disk_is_not_tried_again():
    call, calls = failing(1, OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(OSError, match="No space"):
        retried(call, "writing b")
    assert len(calls) == 1


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)


def test_a_share_that_fails_for_a_moment_is_read_and_written(
    at_once: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    file, failed = tmp_path / "a", {"pread": 0, "fsync": 0}

    def once(name: str) -> None:
        whole = getattr(os, name)

        def call(*arguments: object) -> object:
            failed[name] += 1
            if failed[name] == 1:
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            return whole(*arguments)

        monkeypatch.setattr(os, name, call)

    once("fsync")
    write_atomically(file, b"content")
    once("pread")
    assert storage.read_bytes(str(file), 3, 4) == b"tent"
    assert failed == {"pread": 2, "fsync": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_bucket_that_is_busy_is_read(at_once: None, monkeypatch: pytest.MonkeyPatch):
    import fsspec

    files = fsspec.filesystem("memory")
    files.pipe_file("/retry/a", b"0123456789")
    whole, calls = type(files).cat_file, []

    def busy(self: object, path: str, **span: object) -> bytes:
        calls.append(path)
        if len(calls) < 3:
            raise BucketError(status=429)
        return whole(self, path, **span)

    monkeypatch.setattr(type(files), "cat_file", busy)
    assert storage.read_bytes("memory://retry/a", 2, 3) == b"234" and len(calls) == 3
