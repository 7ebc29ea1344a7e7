"""A folder of anybody's images, one subfolder per class, here or in a bucket."""

from __future__ import annotations

import os

import numpy as np

from fae_jax.data.decode import SUFFIXES
from fae_jax.data.sources.listing import listing_hash, name_hashes, split_positions
from fae_jax.data.sources.stored import StoredImage, StoredSource
from fae_jax.files import storage

Listing = dict[str, list[tuple[str, int]]]
NAMED = 5  # empty folders in an error


class FolderSource(StoredSource):
    """Images under `path`/class/, classes and names in sorted order.

    Hidden files and files of other kinds are passed over; an image is known by its suffix.

    Raises:
      FileNotFoundError: `path` does not exist.
      ValueError: `path` is no folder, cannot be read, has fewer than two subfolders, or one without an image.
    """

    def __init__(self, path: str, *, split: str, holdout: float, seed: int):
        self.root = path if storage.is_remote(path) else os.path.expanduser(path)
        listing = _listing(self.root)
        self.classes = tuple(listing)
        names = [f"{folder}/{name}" for folder, images in listing.items() for name, _ in images]
        sizes = np.array([size for images in listing.values() for _, size in images], np.int64)
        counts = [len(images) for images in listing.values()]
        labels = np.repeat(np.arange(len(listing), dtype=np.int32), counts)
        hashes = name_hashes(names)
        chosen = split_positions(hashes, labels, split=split, holdout=holdout, seed=seed)
        self.names = [names[position] for position in chosen]
        self.keys, self.labels = hashes[chosen], labels[chosen]
        self.fingerprint = listing_hash("folder", self.keys, sizes[chosen], self.labels)

    def name(self, position: int) -> str:
        return storage.join(self.root, self.names[position])

    def stored(self, position: int) -> StoredImage:
        return StoredImage(storage.read_bytes(self.name(position)), int(self.labels[position]))


def _listing(root: str) -> Listing:
    """Class → its images and their sizes, all sorted."""
    try:
        listing = _remote_listing(root) if storage.is_remote(root) else _local_listing(root)
    except PermissionError as error:
        raise ValueError(f"image folder {error.filename} cannot be read: {error.strerror}") from error
    if not listing:
        raise ValueError(f"image folder {root} has no subfolders; it needs one subfolder per class")
    if len(listing) < 2:
        raise ValueError(f"image folder {root} has only {[*listing][0]!r} in it; it needs at least two classes")
    empty = [storage.join(root, folder) for folder, images in listing.items() if not images]
    if empty:
        named = ", ".join(empty[:NAMED]) + (f" and {len(empty) - NAMED} more" if len(empty) > NAMED else "")
        verb = "has" if len(empty) == 1 else "have"
        raise ValueError(
            f"{len(empty)} of {len(listing)} class folders: {named} {verb} no images ({', '.join(SUFFIXES)}); "
            "fill or remove what is empty"
        )
    return listing


def _local_listing(root: str) -> Listing:
    if not os.path.exists(root):
        raise FileNotFoundError(f"image folder {root} does not exist")
    if not os.path.isdir(root):
        raise ValueError(f"image folder {root} is not a folder")
    listing = {}
    for folder in sorted(entry.name for entry in _visible(root) if entry.is_dir()):
        files = (entry for entry in _visible(os.path.join(root, folder)) if _is_image(entry.name))
        listing[folder] = sorted((entry.name, entry.stat().st_size) for entry in files if entry.is_file())
    return listing


def _remote_listing(root: str) -> Listing:
    files = storage.filesystem(root)
    if not files.exists(root):
        raise FileNotFoundError(f"image folder {root} does not exist")
    start = len(files._strip_protocol(root).rstrip("/")) + 1
    listing: Listing = {}
    for path, about in sorted(files.find(root, maxdepth=2, detail=True).items()):
        folder, _, name = path[start:].partition("/")
        if name and not name.startswith(".") and not folder.startswith("."):
            images = listing.setdefault(folder, [])
            if _is_image(name):
                images.append((name, int(about["size"])))
    return listing


def _visible(folder: str) -> list[os.DirEntry]:
    with os.scandir(folder) as entries:
        return [entry for entry in entries if not entry.name.startswith(".")]


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)
