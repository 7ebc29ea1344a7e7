"""Images in array_record files of our own: what `fae prepare --pack` makes of any source.

    header.json     classes, captioned or not, files and their counts; written last
    images.npz    key, label and size of every image, so that opening reads no image
    images-00000-of-00008.array_record

A record is: int32 label, uint32 bytes of name, uint32 bytes of captions; name in UTF-8; captions as a JSON list in
UTF-8; the image file as it was. Little-endian. Pixels are never touched, so nothing is lost.
"""

from __future__ import annotations

import contextlib
import io
import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fae_jax.data.sources import record_files
from fae_jax.data.sources.listing import listing_hash, split_positions
from fae_jax.data.sources.record_files import RecordFiles
from fae_jax.data.sources.stored import StoredImage, StoredSource
from fae_jax.files import storage
from fae_jax.files.writing import write_atomically, write_json

FORMAT = "fae_jax images 1"
_PREFIX = struct.Struct("<iII")


class PackedSource(StoredSource):
    """Images packed by `write_packed`, here or in a bucket.

    Raises:
      FileNotFoundError: `path` is no packed folder, or one that was not finished.
      ValueError: its header is damaged or of another format.
    """

    def __init__(self, path: str, *, split: str, holdout: float, seed: int):
        header_path = storage.join(path, "header.json")
        if not storage.exists(header_path):
            raise FileNotFoundError(f"{path} holds no finished packed images; `fae prepare --pack` makes them")
        try:
            header = json.loads(storage.read_bytes(header_path))
            if header["format"] != FORMAT:
                raise ValueError(f"its format is {header['format']!r}, this is {FORMAT!r}")
            columns = storage.read_arrays(storage.join(path, "images.npz"))
            keys, labels, sizes = (columns[name] for name in ("key", "label", "size"))
            files, counts = zip(*header["files"].items(), strict=True)
            self.classes, self.captioned = tuple(header["classes"]), bool(header["captioned"])
            if {len(keys), len(labels), len(sizes)} != {sum(counts)}:
                raise ValueError(f"it lists {len(keys)} images in files of {sum(counts)}")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"packed images {path} cannot be opened ({error}); the same `fae prepare --pack` mends them"
            ) from error
        self._records = RecordFiles([storage.join(path, file) for file in files], counts)
        self._rows = split_positions(keys, labels, split=split, holdout=holdout, seed=seed)
        self.keys = keys[self._rows]
        self.fingerprint = listing_hash("packed", self.keys, sizes[self._rows], labels[self._rows])

    def name(self, position: int) -> str:
        return self._records.place(int(self._rows[position]))

    def stored(self, position: int) -> StoredImage:
        return unpack_image(self._records.read([int(self._rows[position])])[0])


def pack_image(image: StoredImage, name: str) -> bytes:
    """One record."""
    title, text = name.encode("utf-8", "surrogateescape"), b""
    if image.captions:
        text = json.dumps(image.captions, ensure_ascii=False).encode("utf-8", "backslashreplace")
    return _PREFIX.pack(image.label, len(title), len(text)) + title + text + image.data


def unpack_image(record: bytes) -> StoredImage:
    """Inverse of `pack_image`, less the name."""
    label, title, text = _PREFIX.unpack_from(record)
    start = _PREFIX.size + title
    captions = tuple(json.loads(record[start : start + text])) if text else ()
    return StoredImage(record[start + text :], label, captions)


def write_packed(
    folder: str | Path,
    source: StoredSource,
    rows: np.ndarray,
    *,
    shard_size: int = 4096,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Packs the images at positions `rows` of a source; files that an earlier run finished are kept.

    Raises:
      ValueError: the folder holds something else.
      OSError: the disk is full, or an image cannot be read.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "index.json").exists():
        raise ValueError(f"{folder} holds an index of tars; pack into another folder")
    count = -(-len(rows) // shard_size)
    files, labels, sizes = {}, [], []
    for number in range(count):
        part = rows[number * shard_size : (number + 1) * shard_size]
        path = folder / f"images-{number:05d}-of-{count:05d}.array_record"
        part_labels, part_sizes = _pack_file(path, source, part)
        labels.append(part_labels)
        sizes.append(part_sizes)
        files[path.name] = len(part)
        if progress:
            progress(min((number + 1) * shard_size, len(rows)), len(rows))
    columns = {"key": source.keys[rows], "label": np.concatenate(labels), "size": np.concatenate(sizes)}
    table = io.BytesIO()
    np.savez(table, **columns)
    write_atomically(folder / "images.npz", table.getvalue())
    header = {"format": FORMAT, "classes": source.classes, "captioned": source.captioned, "files": files}
    write_json(folder / "header.json", header)


def _pack_file(path: Path, source: StoredSource, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels and sizes of the images packed into one file, which is only written if it is not there."""
    if path.exists() and record_files.count_records(str(path)) == len(rows):
        images = [unpack_image(record) for record in RecordFiles([str(path)], [len(rows)]).read(range(len(rows)))]
    else:
        images = [source.stored(int(row)) for row in rows]
        temporary = path.with_name(f"{path.name}.part")
        try:
            with record_files.writing(temporary) as write:
                for row, image in zip(rows, images, strict=True):
                    write(pack_image(image, source.name(int(row))))
            record_files.settle(temporary, len(rows))
            temporary.rename(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
    labels = np.array([image.label for image in images], np.int32)
    return labels, np.array([len(image.data) for image in images], np.int64)
