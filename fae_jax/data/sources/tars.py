"""Tar shards of WebDataset and img2dataset as a source, in place: nothing is unpacked or converted."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from fae_jax.data.sources.listing import listing_hash, numbered, shards, split_positions
from fae_jax.data.sources.stored import Skip, StoredImage, StoredSource, warn_of
from fae_jax.data.sources.tar_index import VERSION, TarIndex, captions_of, join_indices, scan_tar
from fae_jax.files import storage
from fae_jax.files.progress import report_progress
from fae_jax.files.storage import StoredFile

COUNT_FROM_1 = 'name them in a classes.json beside the shards, [{"class": 1, "name": "…"}, …]'
MANY = 8  # tars: scanning fewer is not worth a line


class TarSource(StoredSource):
    """Images in tar shards, with classes or with captions.

    `path` is a shard, a folder of shards, a pattern of shards, or the folder of an index that `fae prepare` made;
    without an index the shards are scanned each time. Names of classes are taken from a `classes.json` beside the
    shards, if there is one: a list of names, or of {"class": number, "name": text}.

    Args:
      scanned: a folder that keeps what each shard holds, so that it is scanned once; None: nothing is kept.

    Raises:
      FileNotFoundError: nothing is at `path`, or a shard of the index is gone.
      ValueError: no tars, unreadable ones, no usable images, neither classes nor captions, or a stale index.
    """

    def __init__(self, path: str, *, split: str, holdout: float, seed: int, scanned: Path | None = None):
        index, self.classes = open_index(path, scanned)
        keys, labels = (np.asarray(index.columns[name]) for name in ("key", "label"))
        chosen = split_positions(keys, labels, split=split, holdout=holdout, seed=seed)
        self.index = index if len(chosen) == len(index) else index.keep(chosen)
        self.keys = np.asarray(self.index.columns["key"])
        self.captioned, self.skipped = not self.classes, index.skipped
        listed = ("key", "size", "label", "text_size")
        self.fingerprint = listing_hash("tar", *(np.asarray(self.index.columns[name]) for name in listed))

    def name(self, position: int) -> str:
        shard = self.index.files[self.index.columns["shard"][position]]
        return f"{shard.path}, image at byte {self.index.columns['offset'][position]}"

    def stored(self, position: int) -> StoredImage:
        shard, offset, size, label = self._row(position, "shard", "offset", "size", "label")
        path = self.index.files[shard].path
        captions: tuple[str, ...] = ()
        if self.captioned:
            start, length, is_json = self._row(position, "text_offset", "text_size", "text_json")
            captions = captions_of(storage.read_bytes(path, start, length), is_json)
        return StoredImage(storage.read_bytes(path, offset, size), label, captions)

    def _row(self, position: int, *names: str) -> list[Any]:
        return [self.index.columns[name][position].item() for name in names]


def open_index(path: str, scanned: Path | None = None) -> tuple[TarIndex, tuple[str, ...]]:
    """An index made by `fae prepare`, or one made now; and the names of the classes.

    What each shard holds is kept in the folder `scanned`, if there is one, and not looked for again.
    """
    path = storage.from_root(path)
    if storage.exists(storage.join(path, "index.json")):
        index, about = TarIndex.load(path)
        if "classes" not in about:
            raise ValueError(f"{path} is one shard's part of an index; name the folder that `fae prepare` wrote")
        return index, tuple(about["classes"])
    files = shards(path, ".tar")
    progress, parts = report_progress("scan (`fae prepare` keeps what it gives)", "tars"), []
    with ThreadPoolExecutor(min(8, 2 * (os.cpu_count() or 1))) as pool:
        for part in pool.map(lambda file: _scanned(file, scanned), files):
            parts.append(part)
            if len(files) >= MANY:
                progress(len(parts), len(files))
    index = join_indices(parts)
    names, first = class_names(path)
    if first:
        labels = np.asarray(index.columns["label"])
        out_of_range = labels.dtype.type(len(names))
        shifted = np.where(labels < first, out_of_range, labels - first)
        index.columns["label"] = np.where(labels < 0, labels, shifted).astype(labels.dtype)
    index, classes = usable(index, names, path)
    warn_of(index.skipped, path)
    return index, classes


def _scanned(file: StoredFile, keep: Path | None) -> TarIndex:
    """One shard's index, from an earlier scan if that is kept and the shard is as it was."""
    if keep is None:
        return scan_tar(file)
    folder = keep / f"{file.name}-{hashlib.sha256(file.path.encode()).hexdigest()[:8]}"
    with contextlib.suppress(ValueError, FileNotFoundError):
        kept, about = TarIndex.load(str(folder))
        if about["version"] == VERSION:
            return kept
    index = scan_tar(file)
    index.save(folder, {})
    return index


def usable(index: TarIndex, names: tuple[str, ...], path: str) -> tuple[TarIndex, tuple[str, ...]]:
    """Leaves out images without the class, or without the caption, that the others have.

    Raises:
      ValueError: none is left, or none has either.
    """
    labels, captions = np.asarray(index.columns["label"]), np.asarray(index.columns["text_size"]) > 0
    if not len(index):
        first = f" ({index.skipped[0].name}: {index.skipped[0].reason})" if index.skipped else ""
        raise ValueError(f"{path} holds no image that can be used{first}")
    if (labels >= 0).any():
        names = names or numbered(labels, path, COUNT_FROM_1)
        good = (labels >= 0) & (labels < len(names))
        reasons = np.where(labels < 0, "has no class", "its class is out of range")
    elif captions.any():
        good, names = captions, ()
        reasons = np.full(len(index), "has no caption")
    else:
        raise ValueError(f"{path} holds images with neither a class (key.cls) nor a caption (key.txt)")
    if not good.any():
        raise ValueError(f"{path} holds no image that can be used ({reasons[0]})")
    dropped = []
    for row in np.flatnonzero(~good):
        file, offset = index.files[index.columns["shard"][row]], index.columns["offset"][row]
        dropped.append(Skip(f"{file.name}, image at byte {offset}", str(reasons[row])))
    return (index.keep(np.flatnonzero(good), dropped) if dropped else index), names


def class_names(path: str) -> tuple[tuple[str, ...], int]:
    """Names in the `classes.json` of a folder or beside a file, none if there is none; and the first one's number.

    Raises:
      ValueError: it is neither a list of names nor of {"class", "name"} whose numbers follow each other.
    """
    folder = path if path.rsplit("/", 1)[-1].find(".tar") < 0 else path.rpartition("/")[0] or "."
    file = storage.join(folder, "classes.json")
    if not storage.exists(file):
        return (), 0
    try:
        listed = json.loads(storage.read_bytes(file))
        if not isinstance(listed, list):
            raise TypeError(type(listed).__name__)
        if all(isinstance(entry, str) for entry in listed):
            return tuple(listed), 0
        names = {entry["class"]: entry["name"] for entry in listed}
        first = min(names)
        return tuple(str(names[number]) for number in range(first, first + len(names))), first
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{file} is neither a list of names nor of class and name ({error!r})") from error
