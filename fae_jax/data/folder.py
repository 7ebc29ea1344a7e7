"""A folder of anybody's pictures, one subfolder per class."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from fae_jax.data.decode import SUFFIXES, BadPicture, decode_picture
from fae_jax.data.sources import listing_hash, split_positions


class FolderSource:
    """Pictures under `path`/class/, classes and names in sorted order, as a `Source`.

    Hidden files and files of other kinds are passed over; a picture is known by its suffix.

    Raises:
      FileNotFoundError: `path` does not exist.
      ValueError: `path` is no folder, cannot be read, has fewer than two subfolders, or one without a picture.
    """

    def __init__(self, path: str, *, split: str, holdout: float, seed: int):
        root = Path(path).expanduser()
        listing = _listing(root)
        self.classes = tuple(name for name, _ in listing)
        labels, names, sizes = [], [], []
        for label, (folder, pictures) in enumerate(listing):
            for name, size in pictures:
                labels.append(label)
                names.append(f"{folder}/{name}")
                sizes.append(size)
        chosen = split_positions(names, labels, split=split, holdout=holdout, seed=seed)
        self.root = root
        self.names = [names[position] for position in chosen]
        self.labels = np.asarray(labels, np.int32)[chosen]
        self.fingerprint = listing_hash("folder", (f"{names[i]}\t{sizes[i]}\t{labels[i]}" for i in chosen))

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, position: int) -> dict[str, Any]:
        name = self.names[position]
        try:
            data = (self.root / name).read_bytes()
        except OSError as error:
            raise BadPicture(f"{self.root / name}: {error.strerror or error}") from error
        image = decode_picture(data, str(self.root / name))
        return {"image": image, "label": self.labels[position], "index": np.int64(position)}


def _listing(root: Path) -> list[tuple[str, list[tuple[str, int]]]]:
    if not root.exists():
        raise FileNotFoundError(f"picture folder {root} does not exist")
    if not root.is_dir():
        raise ValueError(f"picture folder {root} is not a folder")
    try:
        folders = sorted(entry.name for entry in _visible(root) if entry.is_dir())
        if not folders:
            raise ValueError(f"picture folder {root} has no subfolders; it needs one subfolder per class")
        if len(folders) < 2:
            raise ValueError(f"picture folder {root} has only {folders[0]!r} in it; it needs at least two classes")
        listing = []
        for folder in folders:
            pictures = sorted((e.name, e.stat().st_size) for e in _visible(root / folder) if _is_picture(e))
            if not pictures:
                raise ValueError(
                    f"class folder {root / folder} has no pictures ({', '.join(SUFFIXES)}); fill it or remove it"
                )
            listing.append((folder, pictures))
    except PermissionError as error:
        raise ValueError(f"picture folder {error.filename} cannot be read: {error.strerror}") from error
    return listing


def _visible(folder: Path) -> list[os.DirEntry]:
    with os.scandir(folder) as entries:
        return [entry for entry in entries if not entry.name.startswith(".")]


def _is_picture(entry: os.DirEntry) -> bool:
    return entry.name.lower().endswith(SUFFIXES) and entry.is_file()
