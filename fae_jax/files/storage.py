"""Files on this machine or in a bucket (`gs://`, `s3://`, …), read by range.

Local files are read directly; everything with a protocol in front goes through fsspec. Nothing stays open between
reads, so sources can be sent to worker processes, and a thousand shards need no thousand file descriptors.
"""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fae_jax.files.paths import filesystem, is_remote
from fae_jax.files.retry import retried


@dataclasses.dataclass(frozen=True)
class StoredFile:
    """A file as it was found.

    Attributes:
      path: with protocol, if it has one.
      size: in bytes.
      stamp: time of its last change in seconds, or the bucket's own mark of a version.
    """

    path: str
    size: int
    stamp: str

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.rsplit("/", 1)[-1]


def from_root(path: str) -> str:
    """A path that means the same wherever the next command is typed: `~` and relative ones from the root on."""
    return path if is_remote(path) else os.path.abspath(os.path.expanduser(path))


def find_files(path: str, suffixes: Sequence[str]) -> list[StoredFile]:
    """The files a path stands for, sorted by name.

    Args:
      path: one file, a folder (its files with one of `suffixes`), or a pattern with *, ?, [abc] or {0000..0127}.
      suffixes: what files in a folder must end with.

    Raises:
      FileNotFoundError: there is no such file or folder.
      ValueError: a folder without such files, or a pattern that fits none.
    """
    path = from_root(path)
    files = [file for part in _expanded(path) for file in _matching(part, tuple(suffixes))]
    if not files:
        if not exists(path) and not is_pattern(path):
            raise FileNotFoundError(f"{path} does not exist")
        raise ValueError(f"{path} holds no file that ends in {' or '.join(suffixes)}")
    return files


def list_files(folder: str, suffix: str) -> list[StoredFile]:
    """The files of a folder whose names end in `suffix`, sorted; none where there is no such folder."""
    return _matching(folder, (suffix,)) if exists(folder) else []


def _expanded(path: str) -> list[str]:
    span = re.search(r"\{(\d+)\.\.(\d+)\}", path)
    if not span:
        return [path]
    first, last = span.groups()
    before, after = path[: span.start()], path[span.end() :]
    numbers = [f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)]
    return [name for number in numbers for name in _expanded(before + number + after)]


def is_pattern(path: str) -> bool:
    """Whether a path stands for several by *, ?, [abc] or {0000..0127}."""
    return any(mark in path for mark in "*?[{")


def _matching(path: str, suffixes: tuple[str, ...]) -> list[StoredFile]:
    if is_remote(path):
        files = filesystem(path)
        if is_pattern(path):
            about = list(files.glob(path, detail=True).values())
        else:
            about = files.ls(path, detail=True) if files.exists(path) else []
            if files.isdir(path):
                about = [each for each in about if each["name"].endswith(suffixes)]
        return sorted((_stored(path, each) for each in about), key=lambda file: file.path)
    if is_pattern(path) and not os.path.exists(path):
        names = sorted(glob.glob(path))
    elif os.path.isdir(path):
        inside = sorted(name for name in os.listdir(path) if name.endswith(suffixes) and not name.startswith("."))
        names = [os.path.join(path, name) for name in inside]
    else:
        names = [path] if os.path.exists(path) else []
    return [stat(name) for name in names]


def _stored(path: str, about: dict[str, Any]) -> StoredFile:
    """A remote file by what its file system says; `path` is one of the same protocol."""
    name, protocol = about["name"], path.split("://", 1)[0]
    mark = next((about[key] for key in ("generation", "etag", "ETag", "mtime", "created") if about.get(key)), "")
    return StoredFile(name if is_remote(name) else f"{protocol}://{name.lstrip('/')}", int(about["size"]), str(mark))


def exists(path: str) -> bool:
    """Whether a file or folder is there."""
    return filesystem(path).exists(path) if is_remote(path) else os.path.exists(path)


def stat(path: str) -> StoredFile:
    """Size and version of one file."""
    if is_remote(path):
        return _stored(path, filesystem(path).info(path))
    about = os.stat(path)
    return StoredFile(path, about.st_size, f"{about.st_mtime:.6f}")


def join(folder: str, name: str) -> str:
    """A path inside a folder."""
    return f"{folder.rstrip('/')}/{name}"


def open_file(path: str) -> Any:
    """Opens a file to read it from front to back."""
    return filesystem(path).open(path, "rb", block_size=2**24) if is_remote(path) else open(path, "rb")


def read_bytes(path: str, offset: int = 0, size: int | None = None) -> bytes:
    """`size` bytes from `offset` on, or all that follow; tried again where a share or bucket fails for a moment.

    Raises:
      OSError: they are not there.
    """
    return retried(lambda: _read(path, offset, size), f"reading {path}")


def _read(path: str, offset: int, size: int | None) -> bytes:
    if is_remote(path):
        data = filesystem(path).cat_file(path, start=offset or None, end=None if size is None else offset + size)
    else:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # half the time of Python's own file objects
        try:
            data = os.pread(file, os.fstat(file).st_size - offset if size is None else size, offset)
        finally:
            os.close(file)
    if size is not None and len(data) != size:
        raise OSError(f"{path} ends {size - len(data)} bytes too early")
    return data


def read_arrays(path: str, without: Collection[str] = ()) -> dict[str, np.ndarray]:
    """The arrays of an .npz file, but for those named in `without`.

    Raises:
      FileNotFoundError: it does not exist.
      ValueError: it is damaged or holds something else.
    """
    if not exists(path):
        raise FileNotFoundError(f"{path} does not exist")
    try:
        with open(local_copy(path), "rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files if name not in without}
    except Exception as error:  # zipfile, zlib and NumPy raise almost anything on damaged files
        reason = " ".join(f"{type(error).__name__} {error}".split())[:100]
        raise ValueError(f"{path} is damaged or no .npz file ({reason})") from error


def sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256, hexadecimal, of a file on this machine."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_folder() -> Path:
    """`fae_jax` under `XDG_CACHE_HOME`, by default `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fae_jax"


def local_copy(path: str) -> str:
    """A local file with the same content, for libraries that read nothing else; remote ones are fetched once.

    Copies lie in `cache_folder()`, and are known by path, size and version.
    """
    if not is_remote(path):
        return path
    file = stat(path)
    key = hashlib.sha256(f"{file}".encode()).hexdigest()[:16]
    folder = cache_folder() / "files" / key
    target = folder / file.name
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f"{file.name}.part-{os.getpid()}"
        try:
            filesystem(path).get_file(path, str(temporary))
            temporary.rename(target)
        finally:
            temporary.unlink(missing_ok=True)
    return str(target)
