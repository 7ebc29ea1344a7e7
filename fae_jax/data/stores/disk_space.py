"""How much a cache will take, and whether the disk has it, before anything is written."""

from __future__ import annotations

import contextlib
import json
import shutil

from fae_jax.data.stores.latents import HEADER, CacheIdentity, planned_bytes
from fae_jax.files import storage
from fae_jax.files.paths import absolute, as_path, is_remote

MARGIN = 1.01  # the files' own index beside the records


def bytes_to_write(directory: str, identity: CacheIdentity, images: int, shape: tuple[int, int]) -> int:
    """Bytes of a cache, less what an interrupted run has left in its folder; captions are not counted.

    Args:
      directory: the cache's own folder, there or not.
      identity: what it is of.
      images: how many will be encoded.
      shape: tokens and channels of what is stored.
    """
    if storage.exists(storage.join(directory, HEADER)):
        return 0
    described = [file for file in storage.list_files(directory, ".json") if file.name.startswith("shard-")]
    written = 0  # images of finished shards; one whose description is damaged is written anew
    for file in described:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            written += json.loads(storage.read_bytes(file.path))["span"]
    return round(MARGIN * planned_bytes(images - written, shape, identity.flip, identity.layout))


def check_room(directory: str, needed: int, what: str, remedy: str) -> str:
    """Refuses to write `needed` bytes where there is no room for them; otherwise says how it stands.

    Raises:
      ValueError: the disk is too small, or there is a file; says `what` it is about, and the `remedy`.
    """
    path = as_path(directory)
    if is_remote(path):
        return f"{_size(needed)} to write to {directory}"
    there = next(folder for folder in (path, *absolute(path).parents) if folder.exists())
    if not there.is_dir():
        raise ValueError(f"{what} cannot be written to {directory}: {there} is a file; name a folder")
    free = shutil.disk_usage(there).free
    if needed > free:
        raise ValueError(f"{what} takes {_size(needed)} more in {directory}, where {_size(free)} are free; {remedy}")
    return f"{_size(needed)} to write to {directory}, {_size(free)} free"


def _size(count: int) -> str:
    return f"{count / 1e9:,.2f} GB" if count >= 1e7 else f"{count / 1e6:,.2f} MB"
