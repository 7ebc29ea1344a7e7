"""Parquet files of images as data sets come from the Hugging Face hub, read in place.

A column of {"bytes", "path"} holds the images, an integer column their classes (whose names are in the file's own
"huggingface" note) or a string column their captions. Parquet is read by groups of rows, so one image at random
costs a whole group; the last ones are kept. For many epochs, `fae prepare --pack` is the faster way.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from fae_jax.data.sources.columns import UNNAMED, USUAL, Chosen, Columns, choose
from fae_jax.data.sources.listing import listing_hash, name_hashes, numbered, shards, split_positions
from fae_jax.data.sources.stored import StoredImage, StoredSource
from fae_jax.files import storage
from fae_jax.files.storage import StoredFile

KEPT_GROUPS = 8  # over all files that are read


class ParquetSource(StoredSource):
    """Images in parquet files: one file, a folder or a pattern of them, here or in a bucket.

    Raises:
      FileNotFoundError: nothing is at `path`.
      ValueError: a file is damaged, or has no image and class or caption columns, or several and none is chosen.
    """

    def __init__(self, path: str, *, split: str, holdout: float, seed: int, columns: Columns = UNNAMED):
        self._files = shards(path, ".parquet")
        tables = [_open(file.path) for file in self._files]
        with _reading(self._files[0].path):
            leaves = _leaves(tables[0])
        self._image, label, self._text, marks = _chosen(columns, leaves, self._files[0].path)
        self.captioned = not label
        self._read = tuple({name.split("/")[0]: None for name in (self._image, self._text) if name})
        for file, table in zip(self._files, tables, strict=True):
            for name in sorted({*self._read, label.split("/")[0]} - {"", *table.schema_arrow.names}):
                raise ValueError(f"{file.path} has no column {name!r}, which {self._files[0].path} has")
        groups, keys, labels = [], [], []
        for number, (file, table) in enumerate(zip(self._files, tables, strict=True)):
            for group in range(table.num_row_groups):
                rows = table.metadata.row_group(group).num_rows
                groups += [(number, group, row) for row in range(rows)]
            keys.append(name_hashes(f"{file.name} {row}" for row in range(table.metadata.num_rows)))
            with _reading(file.path):
                labels.append(_labels(table, label))
        all_keys, all_labels = np.concatenate(keys), np.concatenate(labels)
        if not len(all_keys):
            raise ValueError(f"{path} holds no rows")
        remedy = f"subtract 1 from the column {label}, or note its names in the file as a ClassLabel"
        self.classes = (leaves[label].classes or numbered(all_labels, path, remedy)) if label else ()
        all_labels = all_labels.astype(np.int32)
        chosen = split_positions(all_keys, all_labels, split=split, holdout=holdout, seed=seed)
        self._places = np.array(groups, np.int32)[chosen]
        self.keys, self._labels = all_keys[chosen], all_labels[chosen]
        sizes = np.array([file.size for file in self._files])
        told = [name_hashes(marks)] if marks else []
        self.fingerprint = listing_hash("parquet", self.keys, self._labels, sizes, *told)

    def name(self, position: int) -> str:
        file, group, row = self._places[position]
        return f"{self._files[file].path}, row {row} of group {group}"

    def stored(self, position: int) -> StoredImage:
        file, group, row = (int(part) for part in self._places[position])
        table = _group(self._files[file], group, self._read)
        data = _value(table, self._image, row)
        data = data["bytes"] if isinstance(data, dict) else data
        if not data:
            raise ValueError("the row holds no image")
        captions: tuple[str, ...] = ()
        if self.captioned:
            texts = _value(table, self._text, row)
            captions = tuple(filter(None, texts if isinstance(texts, list) else [texts]))
            if not captions:
                raise ValueError("the row holds no caption")
        return StoredImage(data, int(self._labels[position]), captions)


@functools.lru_cache(KEPT_GROUPS)
def _group(file: StoredFile, group: int, columns: tuple[str, ...]) -> Any:
    with _reading(file.path):
        return _open(file.path).read_row_group(group, columns=list(columns))


@contextlib.contextmanager
def _reading(path: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # Arrow's own, or whatever the note of Hugging Face holds
        raise ValueError(f"{path} is no whole parquet file: {' '.join(str(error).split())}") from error


def _open(path: str) -> Any:
    import pyarrow.parquet

    with _reading(path):
        return pyarrow.parquet.ParquetFile(storage.local_copy(path), memory_map=True)


class _Leaf(NamedTuple):
    """A column without columns inside it: what it can be, and what it is by the file's own note."""

    role: str
    noted: bool
    classes: tuple[str, ...] = ()


def _leaves(table: Any) -> dict[str, _Leaf]:
    """The columns that hold images, whole numbers or texts, nested ones by the names that lead to them."""
    import pyarrow

    kinds, leaves = pyarrow.types, {}

    def walk(name: str, kind: Any, about: Any, listed: bool) -> None:
        if not listed and (kinds.is_list(kind) or kinds.is_large_list(kind)):
            inner = about.get("feature", about) if isinstance(about, dict) else next(iter(about), {})
            return walk(name, kind.value_type, inner, True)
        about = about if isinstance(about, dict) else {}
        if kinds.is_struct(kind) and kind.get_field_index("bytes") < 0:
            for field in kind:
                walk(f"{name}/{field.name}", field.type, about.get(field.name, {}), listed)
        elif kinds.is_string(kind) or kinds.is_large_string(kind):
            leaves[name] = _Leaf("caption", False)
        elif not listed and (kinds.is_struct(kind) or kinds.is_binary(kind) or kinds.is_large_binary(kind)):
            leaves[name] = _Leaf("image", kinds.is_struct(kind) or about.get("_type") == "Image")
        elif not listed and kinds.is_integer(kind):
            leaves[name] = _Leaf("label", about.get("_type") == "ClassLabel", tuple(about.get("names", ())))
        return None

    note = json.loads((table.schema_arrow.metadata or {}).get(b"huggingface", b"{}"))
    features = note.get("info", {}).get("features", {})
    for field in table.schema_arrow:
        walk(field.name, field.type, features.get(field.name, {}), False)
    return leaves


def _chosen(columns: Columns, leaves: dict[str, _Leaf], path: str) -> Chosen:
    """The columns to read: those that the file notes as images and classes, and those of usual names."""
    possible = {role: [name for name, leaf in leaves.items() if leaf.role == role] for role in USUAL}
    likely = {
        role: [name for name in names if leaves[name].noted or name.split("/")[-1] in USUAL[role]]
        for role, names in possible.items()
    }
    return choose(columns, possible, likely | {"image": likely["image"] or possible["image"]}, path, list(leaves))


def _labels(table: Any, name: str) -> np.ndarray:
    """The classes of all rows; −1 where there is none."""
    if not name:
        return np.full(table.metadata.num_rows, -1)
    import pyarrow.compute

    first, *inner = name.split("/")
    column = table.read([first])[first].combine_chunks()
    for part in inner:
        column = pyarrow.compute.struct_field(column, part)
    return np.asarray(column.cast(pyarrow.int64()).fill_null(-1).to_numpy(zero_copy_only=False))


def _value(table: Any, name: str, row: int) -> Any:
    """What a row has in a column; a list where a list is on the way to it."""
    first, *inner = name.split("/")
    value = table[first][row].as_py()
    for part in inner:
        value = [each[part] for each in value] if isinstance(value, list) else value and value[part]
    return value
