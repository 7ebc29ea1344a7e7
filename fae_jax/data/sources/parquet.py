"""Parquet files of images as data sets come from the Hugging Face hub, read in place.

A column of {"bytes", "path"} holds the images, an integer column their classes (whose names are in the file's own
"huggingface" note) or a string column their captions. Parquet is read by groups of rows, so one image at random
costs a whole group; a few groups are kept. For many epochs, `fae prepare --pack` is the faster way.
"""

from __future__ import annotations

import collections
import json
import threading
from typing import Any

import numpy as np

from fae_jax.data.sources.listing import listing_hash, name_hashes, shards, split_positions
from fae_jax.data.sources.stored import StoredImage, StoredSource
from fae_jax.files import storage

KEPT_GROUPS = 8
CAPTION_COLUMNS = ("caption", "captions", "text")


class ParquetSource(StoredSource):
    """Images in parquet files: one file, a folder or a pattern of them, here or in a bucket.

    Raises:
      FileNotFoundError: nothing is at `path`.
      ValueError: a file is damaged, or has no image and class or caption columns.
    """

    def __init__(self, path: str, *, split: str, holdout: float, seed: int):
        files = shards(path, ".parquet")
        self._paths = [file.path for file in files]
        tables = [_open(file.path) for file in files]
        self._image, self._label, self._text, names = _columns(tables[0], files[0].path)
        self.captioned = self._label is None
        groups, keys, labels = [], [], []
        for number, (file, table) in enumerate(zip(files, tables, strict=True)):
            for group in range(table.num_row_groups):
                rows = table.metadata.row_group(group).num_rows
                groups += [(number, group, row) for row in range(rows)]
            keys.append(name_hashes(f"{file.name} {row}" for row in range(table.metadata.num_rows)))
            labels.append(
                np.full(table.metadata.num_rows, -1, np.int32)
                if self._label is None
                else np.asarray(table.read([self._label])[self._label].to_numpy(), np.int32)
            )
        all_keys, all_labels = np.concatenate(keys), np.concatenate(labels)
        if not len(all_keys):
            raise ValueError(f"{path} holds no rows")
        if not self.captioned:
            names = names or tuple(str(number) for number in range(all_labels.max() + 1))
        self.classes = names
        chosen = split_positions(all_keys, all_labels, split=split, holdout=holdout, seed=seed)
        self._places = np.array(groups, np.int32)[chosen]
        self.keys, self._labels = all_keys[chosen], all_labels[chosen]
        sizes = np.array([file.size for file in files])
        self.fingerprint = listing_hash("parquet", self.keys, self._labels, sizes)
        self._groups: collections.OrderedDict[tuple[int, int], Any] = collections.OrderedDict()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_groups", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._groups, self._lock = collections.OrderedDict(), threading.Lock()

    def name(self, position: int) -> str:
        file, group, row = self._places[position]
        return f"{self._paths[file]}, row {row} of group {group}"

    def stored(self, position: int) -> StoredImage:
        file, group, row = (int(part) for part in self._places[position])
        table = self._group(file, group)
        held = table[self._image][row].as_py()
        data = held["bytes"] if isinstance(held, dict) else held
        if not data:
            raise ValueError("the row holds no image")
        captions: tuple[str, ...] = ()
        if self._text is not None and self.captioned:
            text = table[self._text][row].as_py() or ()
            captions = tuple([text] if isinstance(text, str) else text)
            if not any(captions):
                raise ValueError("the row holds no caption")
        return StoredImage(data, int(self._labels[position]), captions)

    def _group(self, file: int, group: int) -> Any:
        with self._lock:
            if (file, group) in self._groups:
                self._groups.move_to_end((file, group))
                return self._groups[file, group]
        names = [name for name in (self._image, self._text) if name]
        table = _open(self._paths[file]).read_row_group(group, columns=names)
        with self._lock:
            self._groups[file, group] = table
            if len(self._groups) > KEPT_GROUPS:
                self._groups.popitem(last=False)
        return table


def _open(path: str) -> Any:
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(storage.local_copy(path), memory_map=True)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path} is no whole parquet file: {error}") from error


def _columns(table: Any, path: str) -> tuple[str, str | None, str | None, tuple[str, ...]]:
    """Names of the image, class and caption columns, and the names of the classes."""
    import pyarrow

    schema, kinds = table.schema_arrow, pyarrow.types
    note = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = note.get("info", {}).get("features", {})
    image = text = None
    labels = []
    for field in schema:
        about = features.get(field.name, {})
        kind = about.get("_type") if isinstance(about, dict) else None
        struct = kinds.is_struct(field.type) and field.type.get_field_index("bytes") >= 0
        if image is None and (kind == "Image" or struct or kinds.is_binary(field.type)):
            image = field.name
        if kind == "ClassLabel" or (field.name == "label" and kinds.is_integer(field.type)):
            labels.append(field.name)
        if field.name in CAPTION_COLUMNS:
            text = field.name
    if len(labels) > 1 and "label" not in labels:
        raise ValueError(
            f"{path} has several columns of classes: {', '.join(labels)}; call the one that is meant `label`, "
            "or drop the others"
        )
    label = "label" if "label" in labels else next(iter(labels), None)
    if image is None or (label is None and text is None):
        raise ValueError(f"{path} has no column of images beside one of classes or captions: {schema.names}")
    return image, label, text, tuple(features.get(label, {}).get("names", ())) if label else ()
