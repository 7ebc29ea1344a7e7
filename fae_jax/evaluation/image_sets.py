"""Sets of images that anybody made: `.npz` files, folders, tars, data sources; read in order, a batch at a time.

    NPZ            arr_0, uint8 (n, y, x, 3), and arr_1, labels: the layout of ADM's evaluator
    FOLDER         image files, at any depth, by name
    TAR            image files of one or several tars (a pattern with *, ?, {000..127}), in their order
    KIND:PATH      a data source as `data.source` and `data.path` name it, cropped as in training

Images of the first three are ready: all of one size, and taken as they are.
"""

from __future__ import annotations

import abc
import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Int, UInt8

from fae_jax.data.decode import SUFFIXES, decode_image
from fae_jax.data.loader import ordered_batches
from fae_jax.data.sources.folder import files_below
from fae_jax.data.sources.kinds import KINDS, open_source
from fae_jax.data.sources.listing import Source
from fae_jax.data.sources.tar_index import NO_IMAGE, join_indices, scan_tar
from fae_jax.files import storage
from fae_jax.files.image_archives import ImageArchive
from fae_jax.files.progress import report_progress

Part = tuple[UInt8[np.ndarray, "k y x 3"], Int[np.ndarray, " k"]]
NO_LABEL = -1


@dataclasses.dataclass(kw_only=True)
class ImageSet(abc.ABC):
    """Images of one size, in order.

    Attributes:
      path: as it was given.
      count: how many there are.
      size: (y, x).
      sha256: of labels, sizes and pixels, known after the last.
    """

    path: str
    count: int
    size: tuple[int, int]
    sha256: str | None = None

    def batches(self, batch: int) -> Iterator[Part]:
        """(images, labels), at most `batch` at a time; images of no class have the label −1.

        Raises:
          ValueError: an image cannot be read, or has another size than the first.
        """
        digest, seen, progress = hashlib.sha256(), 0, report_progress(f"images of {self.path}")
        for images, labels in self._read(batch):
            digest.update(f"{images.shape[1:]}".encode() + labels.astype("<i8").tobytes() + images.tobytes())
            seen += len(images)
            progress(seen, self.count)
            yield images, labels
        self.count = seen  # a data source's that cannot be decoded are left out, and named
        self.sha256 = digest.hexdigest()

    @abc.abstractmethod
    def _read(self, batch: int) -> Iterator[Part]: ...


@dataclasses.dataclass(kw_only=True)
class Archive(ImageSet):
    """Those of an `.npz` file."""

    archive: ImageArchive

    def _read(self, batch: int) -> Iterator[Part]:
        labels = self.archive.labels
        labels = np.full(self.count, NO_LABEL) if labels is None else labels.astype(np.int64)
        for place, images in enumerate(self.archive.batches(batch)):
            yield images, labels[place * batch :][: len(images)]


@dataclasses.dataclass(kw_only=True)
class Files(ImageSet):
    """Image files.

    Attributes:
      names: of each, for people.
      read: position → bytes.
      labels: (n,).
    """

    names: list[str]
    read: Callable[[int], bytes]
    labels: Int[np.ndarray, " n"]

    @classmethod
    def of(cls, path: str, names: list[str], read: Callable[[int], bytes], labels: np.ndarray) -> Files:
        """Raises ValueError: the first cannot be read."""
        size = decode_image(read(0), names[0]).shape[:2]
        return cls(path=path, count=len(names), size=size, names=names, read=read, labels=labels)

    def _read(self, batch: int) -> Iterator[Part]:
        with ThreadPoolExecutor(4) as pool:
            for start in range(0, self.count, batch):
                places = range(start, min(start + batch, self.count))
                images = list(pool.map(self._decoded, places))
                for place, image in zip(places, images, strict=True):
                    if image.shape[:2] != self.size:
                        raise ValueError(
                            f"{self.names[place]} is {_by(image.shape)} and {self.names[0]} {_by(self.size)} pixels: "
                            "images of a set have one size; crop them, or name them as a data source, KIND:PATH"
                        )
                yield np.stack(images), self.labels[start : start + batch]

    def _decoded(self, place: int) -> np.ndarray:
        return decode_image(self.read(place), self.names[place])


@dataclasses.dataclass(kw_only=True)
class Cropped(ImageSet):
    """Those of a data source, cropped as in training."""

    source: Source

    def _read(self, batch: int) -> Iterator[Part]:
        with ordered_batches(self.source, batch=min(batch, self.count), image_size=self.size[0]) as batches:
            for rows in batches:
                yield rows["image"][rows["mask"]], rows["label"][rows["mask"]].astype(np.int64)


def _by(shape: tuple[int, ...]) -> str:
    return f"{shape[0]}×{shape[1]}"


def open_images(path: str, side: int | None = None) -> ImageSet:
    """The images that a word of the command line stands for; see the module.

    Args:
      side: of the images of a data source.

    Raises:
      FileNotFoundError: there is nothing.
      ValueError: it holds no images, or `side` is needed and not given.
    """
    kind, colon, place = path.partition(":")
    if colon and kind in KINDS:
        if side is None:
            raise ValueError(f"{path} is a data source: give the side that its images are cropped to, --image_size N")
        source = open_source(kind, path=place or None, split="train", holdout=0.0, seed=0)
        return Cropped(path=path, count=len(source), size=(side, side), source=source)
    root = storage.from_root(path)
    if root.endswith(".npz"):
        archive = ImageArchive.open(root)
        return Archive(path=path, count=archive.shape[0], size=archive.shape[1:3], archive=archive)
    if root.endswith(".tar"):
        return _tars(path, root)
    if not storage.exists(root):
        raise FileNotFoundError(f"{path} does not exist")
    names = sorted("/".join(part) for part, _ in files_below(root) if part[-1].lower().endswith(SUFFIXES))
    if not names:
        raise ValueError(f"{path} holds no images ({', '.join(SUFFIXES)}); name an .npz, a .tar, or a folder of them")
    files = [storage.join(root, name) for name in names]
    return Files.of(path, files, lambda place: storage.read_bytes(files[place]), np.full(len(files), NO_LABEL))


def _tars(path: str, root: str) -> Files:
    index = join_indices([scan_tar(file) for file in storage.find_files(root, (".tar",))])
    lost = [skip for skip in index.skipped if skip.reason != NO_IMAGE]
    if lost or not len(index):
        reason = f": {lost[0].name} {lost[0].reason}" if lost else ""
        raise ValueError(f"{path} holds {len(lost) or 'no'} images{' that cannot be used' if lost else ''}{reason}")
    places = [
        (index.files[shard].path, int(offset), int(size))
        for shard, offset, size in zip(*(index.columns[name] for name in ("shard", "offset", "size")), strict=True)
    ]
    names = [f"{file}, image at byte {offset}" for file, offset, _ in places]
    return Files.of(
        path, names, lambda place: storage.read_bytes(*places[place]), np.asarray(index.columns["label"], int)
    )
