"""Writing that is never half done: here a neighbour is renamed, in a bucket an object is made at once."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import pathlib
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import IO, Any

import numpy as np

from fae_jax.files.paths import Path, filesystem, is_remote
from fae_jax.files.retry import retried


def write_atomically(path: Path, content: str | bytes) -> Path:
    """Writes all of `content` or nothing; makes the folder; returns `path`.

    Tried again where a share or bucket fails for a moment. A name in a text that is no UTF-8 is written with escapes,
    which JSON reads back.
    """
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    retried(lambda: _pipe(path, data) if is_remote(path) else _write(path, data), f"writing {path}")
    return path


def write_file(path: Path, write: Callable[[IO[bytes]], object]) -> Path:
    """The same of what `write` writes into an open file in memory, as `np.savez` or an image's `save` do."""
    file = io.BytesIO()
    write(file)
    return write_atomically(path, file.getvalue())


def _pipe(path: Path, data: bytes) -> None:
    filesystem(path).pipe_file(str(path), data)


def _write(path: Path, data: bytes) -> None:
    with whole_file(path) as file:
        file.write(data)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write piece by piece, which is at `path` when the body ends, whole, and not at all if it fails.

    One for a bucket grows on this machine, in the folder for temporary files, and is uploaded at the end.
    """
    if is_remote(path):
        with tempfile.TemporaryDirectory() as folder:
            local = pathlib.Path(folder) / path.name
            with whole_file(local) as file:
                yield file
            retried(lambda: filesystem(path).put_file(str(local), str(path)), f"writing {path}")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with open(os.fspath(temporary), "xb") as file:  # with the rights that the umask leaves, unlike tempfile's
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def write_json(path: Path, value: Any) -> None:
    """`value` as indented JSON, written atomically."""
    write_atomically(path, json.dumps(value, indent=2) + "\n")


def read_json(path: Path, remedy: str) -> Any:
    """The JSON value of a file.

    Raises:
      ValueError: it is damaged; `remedy` says what to do.
    """
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}): {remedy}") from error


def json_hash(value: Any) -> str:
    """SHA-256, hexadecimal, of a JSON value: by it a file says whether it is as it was written."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def plain(value: Any) -> Any:
    """`value` with NumPy scalars and arrays, tuples, paths and keys turned into plain JSON values."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    return str(value) if isinstance(value, pathlib.PurePath) else value


def write_result(path: Path, result: Mapping[str, Any]) -> Path:
    """Writes `result` as indented JSON, atomically; returns `path`.

    Raises:
      ValueError: the result holds a NaN or an infinity.
      OSError: the place cannot be written or the disk is full; what was there is kept.
    """
    try:
        text = json.dumps(plain(result), indent=2, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise ValueError(f"{path.name} holds a number that is not finite; evaluate finite features") from error
    return write_atomically(path, text + "\n")


def append_line(path: Path, line: str) -> None:
    """Adds a line to a text file that has few, and makes its folder."""
    if is_remote(path):
        write_atomically(path, (path.read_text() if path.exists() else "") + f"{line}\n")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(os.fspath(path), "a", encoding="utf-8", errors="backslashreplace") as file:
        file.write(f"{line}\n")


class GrowingFile:
    """A text file that lines are added to, begun anew with those that are kept.

    On this machine a line is there once `add` returns. An object in a bucket cannot grow: it is written whole by
    `flush`, and by `add` when `every` seconds have passed, or twenty times what writing it last took.

    Args:
      file: where; replaced atomically.
      lines: it begins with.
      every: seconds.
    """

    def __init__(self, file: Path, lines: Iterable[str] = (), every: float = 30.0):
        self._path, self._every = file, every
        self._lines = [f"{line}\n" for line in lines]
        self._written = time.monotonic()
        write_atomically(file, "".join(self._lines))
        self._file = None if is_remote(file) else open(os.fspath(file), "a")  # noqa: SIM115 -- closed by close()
        self._pause, self._changed = every, False

    def add(self, line: str) -> None:
        if self._file is not None:
            self._file.write(f"{line}\n")
            retried(self._file.flush, f"writing {self._path}")
            return
        self._lines.append(f"{line}\n")
        self._changed = True
        if time.monotonic() - self._written > self._pause:
            self.flush()

    def flush(self) -> None:
        """Returns when all lines are where they belong."""
        if self._changed:
            begun = time.monotonic()
            write_atomically(self._path, "".join(self._lines))
            self._written, self._changed = time.monotonic(), False
            self._pause = max(self._every, 20 * (self._written - begun))

    def close(self) -> None:
        self.flush()
        if self._file is not None:
            self._file.close()
