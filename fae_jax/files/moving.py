"""Whole files and folders, from here to there: within a disk, within a bucket, and from a disk into a bucket."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path as LocalPath

from fae_jax.files.paths import Path, filesystem, is_remote
from fae_jax.files.retry import retried


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it; a bucket has none to make."""
    if not is_remote(folder):
        folder.mkdir(parents=True, exist_ok=True)


def put_file(local: LocalPath, target: Path) -> None:
    """Gives a finished local file its name, or puts it into a bucket: whole, or not at all."""
    if is_remote(target):
        retried(lambda: filesystem(target).put_file(str(local), str(target)), f"writing {target}")
        local.unlink()
    else:
        local.rename(target)


def remove_folder(folder: Path) -> None:
    """Removes a folder with all that is in it; one that is not there is none to remove."""
    if is_remote(folder):
        with contextlib.suppress(FileNotFoundError):
            filesystem(folder).rm(str(folder), recursive=True)
    else:
        shutil.rmtree(folder, ignore_errors=True)


def rename_folder(folder: Path, target: Path, mark: str = "") -> None:
    """Renames a folder; `target` is replaced.

    In a bucket objects are copied, and then removed: first `mark`, the one whose presence makes the folder whole.
    """
    remove_folder(target)
    if not is_remote(folder):
        folder.rename(target)
        return
    _copy_objects(folder, target)
    if mark:
        filesystem(folder).rm_file(str(folder / mark))
    remove_folder(folder)


def copy_folder(folder: Path, target: Path) -> None:
    """Copies a folder; whole, or not at all. What is there already stays.

    On a disk files are linked where that is possible: they are replaced in a working directory, never changed. A
    bucket copies by itself; until all is there, an object beside the folder says that it is not.
    """
    half = target.with_name(f".{target.name}.linking")
    if is_remote(target):
        if target.exists() and not half.exists():
            return
        files = filesystem(target)
        files.pipe_file(str(half), b"")
        remove_folder(target)
        if is_remote(folder):
            _copy_objects(folder, target)
        else:
            files.put(f"{folder}/", f"{target}/", recursive=True)
        files.rm_file(str(half))
        return
    if target.exists():
        return
    remove_folder(half)
    make_folder(half.parent)
    if is_remote(folder):
        filesystem(folder).get(f"{folder}/", f"{half}/", recursive=True)
    else:
        shutil.copytree(folder, half, copy_function=_link)
    os.rename(half, target)


def _copy_objects(folder: Path, target: Path) -> None:
    files = filesystem(folder)
    for name in files.find(str(folder)):
        inside = f"gs://{name}".removeprefix(f"{folder}/")
        retried(lambda name=name, to=f"{target}/{inside}": files.cp_file(name, to), f"copying {name}")


def _link(source: str, target: str) -> None:
    """A hard link, or a copy where the file system has none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


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

    def send(self) -> None:
        """Brings what is new or longer than at the last call to the target."""
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
