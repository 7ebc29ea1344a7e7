"""Paths here and in buckets.

A path on this machine is a `pathlib.Path`; one that begins with `gs://` is an `etils.epath.Path`, the type that Orbax
uses. Both have the methods `Path` names here, and what they lack in common is in this room: `absolute`, `writing`,
`moving`.
"""

from __future__ import annotations

import functools
import os
import pathlib
import tempfile
from typing import Any, TypeAlias

os.environ.setdefault("EPATH_USE_TF", "false")  # where TensorFlow happens to be installed, epath would import it
from etils import epath

Path: TypeAlias = pathlib.Path | epath.Path


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether a path has a protocol in front."""
    return "://" in os.fspath(path)


def as_path(path: str | os.PathLike[str]) -> Path:
    """A path as a user gave it: `~` is expanded, `gs://…` stays in its bucket. The one door for paths.

    Raises:
      ValueError: it is empty, has another protocol, or gcsfs is not installed.
    """
    text = os.fspath(path)
    if not text:
        raise ValueError("the path is empty; name a folder or file")
    if not is_remote(text):
        return pathlib.Path(text).expanduser()
    if not text.startswith("gs://") or not text.removeprefix("gs://").split("/")[0]:
        raise ValueError(f"{text} cannot be written to: name a folder on this machine, or gs://BUCKET/FOLDER")
    filesystem(text)
    return epath.Path(text)


def local_path(path: str | os.PathLike[str], option: str) -> pathlib.Path:
    """A path that has to be on this machine.

    Raises:
      ValueError: it is in a bucket; `option` is named.
    """
    if is_remote(path):
        raise ValueError(f"{option} {path} is in a bucket: name a folder on a disk, and copy it there")
    return pathlib.Path(path).expanduser()


def check_folder(path: str | os.PathLike[str], what: str) -> None:
    """Refuses a folder that cannot be written to, or made; leaves nothing there. An empty path and one in
    a bucket pass.

    Args:
      what: it is, in front of the path.

    Raises:
      ValueError: it, or the nearest folder above it that is there, is a file or takes none.
    """
    if not os.fspath(path) or is_remote(path):
        return
    here = pathlib.Path(path).expanduser().absolute()
    there = next(each for each in (here, *here.parents) if os.path.lexists(each))
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise ValueError(
            f"{what}{path} cannot be written to ({there}: {error.strerror or error}); name a folder that can"
        ) from error


def absolute(path: Path) -> Path:
    """The path from the root of its file system on; those in buckets always are."""
    return path if is_remote(path) else path.absolute()


def filesystem(path: str | os.PathLike[str]) -> Any:
    """fsspec's file system for a remote path.

    Raises:
      ValueError: the protocol is unknown, or its package is not installed.
    """
    return _filesystem(os.fspath(path).split("://", 1)[0])


@functools.cache
def _filesystem(protocol: str) -> Any:
    import fsspec

    if protocol in ("gs", "gcs"):
        try:
            from fae_jax.files.bucket import Buckets
        except ImportError as error:
            raise ValueError(
                f"paths that begin with {protocol}:// need the package gcsfs: pip install 'fae_jax[gcs]'"
            ) from error
        for name in ("gs", "gcs"):
            fsspec.register_implementation(name, Buckets, clobber=True)  # epath takes it from there too
    try:
        return fsspec.filesystem(protocol)
    except (ImportError, ValueError) as error:
        raise ValueError(f"paths that begin with {protocol}:// cannot be read here: {error}") from error
