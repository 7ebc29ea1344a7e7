"""Where everything lies inside tar shards, so that they can be read at random, in place.

WebDataset's and img2dataset's layout: files of one sample lie in one shard and share a name up to the first dot,
`key.jpg`, `key.cls` (a class number), `key.txt` (a caption), `key.json` ("captions", "status").

    tar → members (name, offset, size) → samples by key → columns, one row per usable image

Whatever cannot be used is left out and written down with its reason. Nothing is ever extracted; members that name a
place outside the archive, and links, are not looked at.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from fae_jax.data.decode import SUFFIXES
from fae_jax.data.sources.listing import LARGEST_LABEL, listing_hash, name_hashes
from fae_jax.data.sources.stored import Skip
from fae_jax.files import storage
from fae_jax.files.storage import StoredFile
from fae_jax.files.writing import json_hash, write_file, write_json

COLUMNS = {
    "shard": np.int32,
    "offset": np.int64,  # where the image's bytes begin
    "size": np.int32,
    "label": np.int32,  # −1 where there is none
    "text_offset": np.int64,
    "text_size": np.int32,  # 0 where there is no caption
    "text_json": np.bool_,  # captions are the JSON's list "captions", not the text file
    "key": np.uint64,  # name_hashes of the key
}
VERSION = 2  # 1 looked for the members of a sample beside each other; its columns are the same
Members = dict[str, tuple[int, int]]  # suffix → offset, size
LARGEST_IMAGE = 2**30  # bytes; of a file whose pixels are within the limit
LARGEST_TEXT = 2**20  # bytes of a class, caption or JSON, which are read whole
LARGEST_HEADER = 2**20  # bytes of a member's header, with the extensions before it
NO_IMAGE = "has no image"
CUT = "the tar is cut or damaged"
NO_TAR = "is no uncompressed tar, so it cannot be read at random"
DOTS = "its name has a dot before the last one, and a key ends at the first"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TarIndex:
    """Shards and the images in them.

    Attributes:
      files: the shards.
      columns: `COLUMNS`, one row per image, by shard and offset.
      skipped: what was left out.
    """

    files: tuple[StoredFile, ...]
    columns: dict[str, np.ndarray]
    skipped: tuple[Skip, ...]

    def __len__(self) -> int:
        return len(self.columns["shard"])

    def keep(self, rows: np.ndarray, skipped: Iterable[Skip] = ()) -> TarIndex:
        """Only these rows; `skipped` says why others went."""
        columns = {name: column[rows] for name, column in self.columns.items()}
        return dataclasses.replace(self, columns=columns, skipped=(*self.skipped, *skipped))

    def save(self, folder: Path, about: dict[str, Any]) -> None:
        """Writes columns as .npy files and everything else, with the hashes of all, as `index.json`, last."""
        for name, column in self.columns.items():
            write_file(folder / f"{name}.npy", functools.partial(np.save, arr=column))
        header = {
            "version": VERSION,
            "files": [dataclasses.astuple(file) for file in self.files],
            "skipped": [list(skip) for skip in self.skipped],
            "columns": _hash(self.columns),
            **about,
        }
        write_json(folder / "index.json", {**header, "sha256": json_hash(header)})

    @classmethod
    def load(cls, folder: str) -> tuple[TarIndex, dict[str, Any]]:
        """An index, whose columns stay on disk until read, and what else its `index.json` says.

        Raises:
          FileNotFoundError: one of its shards is not there.
          ValueError: it cannot be read, or a shard has changed since it was made.
        """
        again = "make it anew with `fae prepare`"
        try:
            header = json.loads(storage.read_bytes(storage.join(folder, "index.json")))
            if header["version"] not in (1, VERSION):
                raise ValueError(f"version {header['version']}, this is {VERSION}")
            places = {name: storage.local_copy(storage.join(folder, f"{name}.npy")) for name in COLUMNS}
            columns: dict[str, np.ndarray] = {name: np.load(place, "r") for name, place in places.items()}
            if "sha256" in header:  # those of 0.1.0 have no hashes
                written = header.pop("sha256") == json_hash(header) and header["columns"] == _hash(columns)
                if not written:
                    raise ValueError("it is not as it was written")
            index = cls(
                files=tuple(StoredFile(*file) for file in header["files"]),
                columns=columns,
                skipped=tuple(Skip(*skip) for skip in header["skipped"]),
            )
        except Exception as error:  # NumPy raises almost anything on damaged files
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"index {folder} cannot be read ({reason}); {again}") from error
        for file in index.files:
            if not storage.exists(file.path):
                raise FileNotFoundError(f"{file.path}, which index {folder} is of, does not exist; {again}")
            now = storage.stat(file.path)
            if now != file:
                change = f"{file.size} bytes of {file.stamp}, now {now.size} bytes of {now.stamp}"
                raise ValueError(f"index {folder} is older than {file.path} ({change}); {again}")
        return index, header


def _hash(columns: dict[str, np.ndarray]) -> str:
    return listing_hash("index", *(np.asarray(columns[name]) for name in COLUMNS))


def join_indices(parts: Sequence[TarIndex]) -> TarIndex:
    """Indices of single shards → one of all."""
    columns: dict[str, np.ndarray] = {}
    for name, kind in COLUMNS.items():
        columns[name] = np.concatenate([part.columns[name] for part in parts]).astype(kind)
    columns["shard"] = np.repeat(np.arange(len(parts), dtype=np.int32), [len(part) for part in parts])
    files = tuple(file for part in parts for file in part.files)
    return TarIndex(files=files, columns=columns, skipped=tuple(skip for part in parts for skip in part.skipped))


def scan_tar(file: StoredFile) -> TarIndex:
    """Indexes one shard from front to back; one that is no tar has no images, and `skipped` says so."""
    rows: list[dict[str, Any]] = []
    skipped: list[Skip] = []
    with storage.open_file(file.path) as data:
        for key, members in _samples(file, data, skipped):
            row = _row(key, members, data, skipped, file)
            if row is not None:
                rows.append(row)
    columns: dict[str, np.ndarray] = {
        name: np.array([row[name] for row in rows], kind) for name, kind in COLUMNS.items()
    }
    return TarIndex(files=(file,), columns=columns, skipped=tuple(skipped))


def _samples(file: StoredFile, data: Any, skipped: list[Skip]) -> list[tuple[str, Members]]:
    """Key and members of the samples, in the order of their first members; they need not follow each other.

    Where a key has a second member of a kind, another sample begins.
    """
    samples: list[tuple[str, Members]] = []
    current: dict[str, Members] = {}
    for name, offset, size in _members(file, data, skipped):
        folder, slash, last = name.rpartition("/")
        stem, _, suffix = last.partition(".")
        key, suffix = folder + slash + stem, suffix.lower()
        if suffix in current.get(key, (suffix,)):
            current[key] = {}
            samples.append((key, current[key]))
        current[key][suffix] = (offset, size)
    return samples


def _members(file: StoredFile, data: Any, skipped: list[Skip]) -> Iterator[tuple[str, int, int]]:
    headers, end = _Headers(data), 0
    try:
        archive = tarfile.TarFile(fileobj=headers, mode="r")  # type: ignore[arg-type]
    except _NO_HEADER as error:
        skipped.append(Skip(file.name, NO_TAR, str(error)))
        return
    try:
        for member in archive:
            if member.size < 0 or archive.offset <= end:
                raise tarfile.ReadError(f"a member of {member.size} bytes")
            end, headers.left = archive.offset, LARGEST_HEADER
            path = PurePosixPath(member.name)
            if member.isdir() or path.name.startswith("._"):  # macOS's tar puts such a file beside each
                pass
            elif path.is_absolute() or ".." in path.parts:
                skipped.append(Skip(f"{file.name}/{member.name}", "names a place outside the archive"))
            elif not member.isreg():
                skipped.append(Skip(f"{file.name}/{member.name}", "is a link or device, not a file"))
            elif member.issparse():
                skipped.append(Skip(f"{file.name}/{member.name}", "is stored with holes (tar --sparse)"))
            elif member.offset_data + member.size > file.size:
                skipped.append(Skip(f"{file.name}/{member.name}", CUT, "the file ends inside it"))
            else:
                yield member.name, member.offset_data, member.size
            archive.members.clear()  # type: ignore[attr-defined]  # else it keeps every member of a large shard
    except _NO_HEADER as error:
        skipped.append(Skip(file.name, CUT, f"after byte {end}: {error}"))
        return
    data.seek(archive.offset)
    if data.read(512) != bytes(512):
        skipped.append(Skip(file.name, CUT, f"after byte {end}: no end mark"))


# What tarfile raises on headers that make no sense; of extensions before extensions it raises the last.
_NO_HEADER = (tarfile.TarError, ValueError, OverflowError, RecursionError)


class _Headers:
    """A shard as tarfile reads it, for headers alone: what a header asks for is bounded, whatever it says."""

    def __init__(self, data: Any):
        self.seek, self.tell, self._data, self.left = data.seek, data.tell, data, LARGEST_HEADER

    def read(self, size: int) -> bytes:
        self.left -= size
        if size < 0 or self.left < 0:
            raise tarfile.ReadError(f"a header of more than {LARGEST_HEADER:,} bytes")
        return self._data.read(size)


def _row(key: str, members: Members, data: Any, skipped: list[Skip], file: StoredFile) -> dict[str, Any] | None:
    name = f"{file.name}/{key}"
    image = next((members[suffix[1:]] for suffix in SUFFIXES if suffix[1:] in members), None)
    if image is None:
        images = [suffix for suffix in members if suffix.endswith(SUFFIXES)]
        skipped += [Skip(f"{name}.{suffix}", DOTS, f"its key is {key!r}") for suffix in images]
        skipped += [] if images else [Skip(name, NO_IMAGE)]
        return None
    try:
        if image[1] > LARGEST_IMAGE:
            raise Unusable(f"its image is larger than {LARGEST_IMAGE:,} bytes", f"{image[1]:,}")
        label = _label(_read(data, members["cls"])) if "cls" in members else -1
        about = _json(_read(data, members["json"])) if "json" in members else {}
        if about.get("status", "success") != "success":
            raise Unusable("img2dataset could not fetch it", str(about.get("error_message")))
        text, in_json = _caption(members, about, data)
    except Unusable as error:
        skipped.append(Skip(name, *error.args))
        return None
    return {
        "shard": 0,
        "offset": image[0],
        "size": image[1],
        "label": label,
        "text_offset": text[0],
        "text_size": text[1],
        "text_json": in_json,
        "key": name_hashes([key])[0],
    }


def _read(data: Any, place: tuple[int, int]) -> bytes:
    if place[1] > LARGEST_TEXT:
        raise Unusable(f"its class, caption or JSON is larger than {LARGEST_TEXT:,} bytes", f"{place[1]:,}")
    data.seek(place[0])
    return data.read(place[1])


class Unusable(ValueError):
    """Why a sample is left out: a reason, and a detail."""


def _label(content: bytes) -> int:
    try:
        label = int(content)
    except ValueError:
        raise Unusable("its class is not a number", repr(content[:20])) from None
    if not 0 <= label <= LARGEST_LABEL:
        raise Unusable("its class is out of range", str(label))
    return label


def _json(content: bytes | str) -> dict[str, Any]:
    try:
        about = json.loads(content)
    except (ValueError, RecursionError):
        raise Unusable("its JSON cannot be read") from None
    return about if isinstance(about, dict) else {}


def captions_of(content: bytes, is_json: bool) -> tuple[str, ...]:
    """Captions in a text file, or in the list "captions" of a JSON; white space runs become one space.

    Raises:
      Unusable: they are not UTF-8, or there is none.
    """
    try:
        text = content.decode("utf-8")
        texts = _json(text).get("captions", ()) if is_json else [text]
        "".join(map(str, texts)).encode("utf-8")  # JSON may hold halves of characters
    except (UnicodeDecodeError, UnicodeEncodeError) as error:
        raise Unusable("its caption is not UTF-8", f"{error.reason} at {error.start}") from None
    captions = tuple(" ".join(caption.split()) for caption in texts if isinstance(caption, str) and caption.strip())
    if not captions:
        raise Unusable("its caption is empty")
    return captions


def _caption(members: Members, about: dict[str, Any], data: Any) -> tuple[tuple[int, int], bool]:
    """Where a sample's captions are, checked; a size of 0 if there are none."""
    if isinstance(about.get("captions"), list):
        captions_of(_read(data, members["json"]), True)
        return members["json"], True
    if "txt" in members:
        captions_of(_read(data, members["txt"]), False)
        return members["txt"], False
    return (0, 0), False
