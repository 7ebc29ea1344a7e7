"""A folder of anybody's images, one subfolder per class, here or in a bucket."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np

from fae_jax.data.decode import SUFFIXES
from fae_jax.data.sources.listing import listing_hash, name_hashes, split_positions, split_words
from fae_jax.data.sources.stored import Skip, StoredImage, StoredSource, counted, warn_of
from fae_jax.files import storage

Place = tuple[str, ...]  # the names that lead to a file, from the folder on
Listing = dict[str, list[tuple[str, int]]]
NO_FILE = -1  # in place of a size
NAMED = 5  # empty folders in an error


class FolderSource(StoredSource):
    """Images under `path`/class/, classes and names in sorted order.

    An image is known by its ending. What has another, or lies deeper or beside the class folders, is left out and
    counted by ending; hidden files are passed over.

    Raises:
      FileNotFoundError: `path` does not exist.
      ValueError: `path` is no folder, cannot be read, has fewer than two subfolders, or one without an image.
    """

    def __init__(self, path: str, *, split: str, holdout: float, seed: int):
        self.root = path
        listing, self.skipped = _listing(self.root)
        warn_of(self.skipped, self.root)
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


def _listing(root: str) -> tuple[Listing, list[Skip]]:
    """Class → its images and their sizes, all sorted; and what is left out."""
    if not storage.exists(root):
        raise FileNotFoundError(f"image folder {root} does not exist")
    listing: Listing = {}
    skipped: list[Skip] = []
    try:
        files = list(files_below(root))
    except PermissionError as error:
        raise ValueError(f"image folder {error.filename} cannot be read: {error.strerror}") from error
    except NotADirectoryError:
        raise ValueError(f"image folder {root} is not a folder") from None
    for place, size in sorted(files):
        name, ending = place[-1], f"its name ends in {os.path.splitext(place[-1])[1].lower() or 'no suffix'}"
        images = listing.setdefault(place[0], []) if len(place) > 1 else []
        if size == NO_FILE:
            skipped.append(Skip("/".join(place), "it is a link to a folder or to nothing"))
        elif len(place) == 1:
            skipped.append(Skip(name, f"{ending}, and it lies in no class folder"))
        elif len(place) > 2:
            skipped.append(Skip("/".join(place), f"{ending}, and it lies in a folder inside a class folder"))
        elif name and name.lower().endswith(SUFFIXES):
            images.append((name, size))
        elif name:
            skipped.append(Skip("/".join(place), f"{ending}, which is not read"))
    if not listing:
        raise ValueError(f"image folder {root} has no subfolders; it needs one subfolder per class")
    if len(listing) < 2:
        raise ValueError(f"image folder {root} has only {[*listing][0]!r} in it; it needs at least two classes")
    if all(map(split_words, listing)):
        raise ValueError(
            f"the folders in {root} are splits, not classes: {', '.join(listing)}; name the one to train on, with a "
            "subfolder per class, and set data.heldout_path to the other"
        )
    empty = [storage.join(root, folder) for folder, images in listing.items() if not images]
    if empty:
        named = ", ".join(empty[:NAMED]) + (f" and {len(empty) - NAMED} more" if len(empty) > NAMED else "")
        verb = "has" if len(empty) == 1 else "have"
        others = "".join(f"; {count} left out: {reason}" for reason, count in counted(skipped).items())
        raise ValueError(
            f"{len(empty)} of {len(listing)} class folders: {named} {verb} no images ({', '.join(SUFFIXES)}); "
            f"fill or remove what is empty{others}"
        )
    return listing, skipped


def files_below(root: str) -> Iterator[tuple[Place, int]]:
    """Where files lie below a folder, and their sizes; a folder right below it also as a file without a name."""
    return _remote_files(root) if storage.is_remote(root) else _local_files(root)


def _local_files(folder: str, above: Place = ()) -> Iterator[tuple[Place, int]]:
    """Where files lie below a folder, and their sizes; a folder of a class also as a file without a name."""
    with os.scandir(folder) as entries:
        visible = [entry for entry in entries if not entry.name.startswith(".")]
    for entry in visible:
        place = (*above, entry.name)
        if entry.is_dir() and not (above and entry.is_symlink()):  # a link inside a class may lead back up
            if not above:
                yield (entry.name, ""), 0
            yield from _local_files(entry.path, place)
        else:
            yield place, entry.stat().st_size if entry.is_file() else NO_FILE


def _remote_files(root: str) -> Iterator[tuple[Place, int]]:
    files = storage.filesystem(root)
    start = len(files._strip_protocol(root).rstrip("/")) + 1
    for path, about in files.find(root, detail=True).items():
        place = tuple(path[start:].split("/"))
        if not any(name.startswith(".") for name in place):
            yield place, int(about["size"])
