"""Whole files from here to there: within a disk, within a bucket, and from a disk into a bucket."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path as LocalPath

from fae_jax.files.paths import Path, epath, filesystem, is_remote
from fae_jax.files.retry import retried
from fae_jax.files.writing import write_atomically


def put_file(local: LocalPath, target: Path) -> None:
    """Gives a finished local file its name, or puts it into a bucket: whole, or not at all."""
    if is_remote(target):
        retried(lambda: filesystem(target).put_file(str(local), str(target)), f"writing {target}")
        local.unlink()
    else:
        local.rename(target)


def names_below(folder: Path) -> list[str]:
    """All files below a folder, by their paths inside it."""
    if is_remote(folder):
        return [f"gs://{name}".removeprefix(f"{folder}/") for name in filesystem(folder).find(str(folder))]
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]


def copy_file(source: Path, target: Path) -> None:
    """Copies a file, over what is there. On a disk it is linked where that is possible, a bucket copies by itself:
    files of a working directory are replaced, never changed."""
    if is_remote(source) and is_remote(target):
        retried(lambda: filesystem(target).cp_file(str(source), str(target)), f"copying {source}")
    elif is_remote(source) or is_remote(target):
        write_atomically(target, source.read_bytes())
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        try:
            os.link(source, target)
        except OSError:  # the file system has no hard links
            shutil.copy2(source, target)


def remove_folder(folder: Path) -> None:
    """Removes a folder and all below it, where it is there."""
    if is_remote(folder):
        epath.Path(folder).rmtree(missing_ok=True)
    elif folder.exists():
        shutil.rmtree(folder)


@contextlib.contextmanager
def new_folder(folder: Path, last: str = "") -> Iterator[LocalPath]:
    """A local folder to fill. When the block ends its files are in `folder`: on a disk all at once, in a bucket one
    after the other; when the block raises, nothing is.

    Args:
      last: the file that goes into a bucket after all others: where it is, everything is.

    Raises:
      ValueError: `folder` is there, and is not an empty folder.
    """
    taken = (
        names_below(folder)
        if is_remote(folder)
        else folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    )
    if taken:
        raise ValueError(f"{folder} is not empty: name a new folder with --out")
    if is_remote(folder):
        with tempfile.TemporaryDirectory(prefix="fae_") as temporary:
            yield LocalPath(temporary)
            for name in sorted(names_below(LocalPath(temporary)), key=lambda name: (name == last, name)):
                put_file(LocalPath(temporary) / name, folder / name)
        return
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield LocalPath(part)
        if folder.exists():
            folder.rmdir()
        part.rename(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


class Outbox:
    """A local folder for libraries that write nowhere else, and what takes its files to where they belong.

    Attributes:
      folder: where they write: the target itself, or for a bucket a temporary folder.
    """

    def __init__(self, target: Path):
        self._target = target
        self._sent: dict[LocalPath, tuple[int, int]] = {}
        self._temporary = None
        if is_remote(target):
            self._temporary = tempfile.TemporaryDirectory(prefix="fae_", ignore_cleanup_errors=True)
        self.folder = LocalPath(self._temporary.name if self._temporary else target)
        self.folder.mkdir(parents=True, exist_ok=True)

    def send(self) -> None:
        """Brings what is new or longer than at the last call to the target, by name."""
        for file in sorted(self.folder.rglob("*")) if self._temporary else ():
            about = file.stat()
            version = (about.st_size, about.st_mtime_ns)
            if file.is_file() and self._sent.get(file) != version:
                target = self._target / str(file.relative_to(self.folder))
                filesystem(target).put_file(str(file), str(target))
                self._sent[file] = version

    def close(self) -> None:
        """Sends what is left and removes the temporary folder."""
        try:
            self.send()
        finally:
            if self._temporary:
                self._temporary.cleanup()
