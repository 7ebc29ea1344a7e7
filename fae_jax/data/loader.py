"""Batches of images: batch k is a function of (source, seed, k), whoever asks and however often they restarted.

    position of example j of global batch k:   p = k B + j,   0 ≤ j < B                 (1)
    its image:                               order_e(p mod n),  e = ⌊p / n⌋            (2)
    its augmentation:                          drawn from (seed, p)                      (3)
    host h of H holds rows                     h B/H ≤ j < (h + 1) B/H                   (4)

order_e is a permutation of the n images, a different one for each epoch e, computed index by index; nothing is
stored, so "go to step k" costs nothing, and the state of the data is the step number. Whole batches are dealt to
worker processes and threads, and taken back in order, so their number is not in any of the equations.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import grain
import numpy as np
from absl import flags
from grain.transforms import RandomMap

from fae_jax.data.decode import BadImage
from fae_jax.data.replacement import BadImages, Readable
from fae_jax.data.sources.listing import Source
from fae_jax.data.sources.mixture import Mixture
from fae_jax.data.transforms import (
    CROPS,
    ChooseCaption,
    RandomFlip,
    RandomResizedCrop,
    adm_centre_crop,
)
from fae_jax.files.paths import Path

Batch = dict[str, np.ndarray]
LAST_POSITION = 2**62


class Batches(Iterator[Batch]):
    """An iterator of batches that owns threads or processes; close it, or use it in a `with` statement."""

    def __init__(self, dataset: grain.IterDataset, finish: Callable[[Batch], Batch] = lambda batch: batch):
        self._iterator, self._finish = iter(dataset), finish

    def __next__(self) -> Batch:
        return self._finish(next(self._iterator))

    def close(self) -> None:
        """Ends its threads and processes; may be called twice."""
        self._iterator.close()

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
    """How batches are prepared ahead; no field changes what is in them.

    Attributes:
      workers: processes; 0 prepares batches in threads of this process.
      threads: batches prepared at a time, in each worker.
      ahead: batches kept ready, in each worker; the bound on memory.
    """

    workers: int = 0
    threads: int = 2
    ahead: int = 4

    def __post_init__(self) -> None:
        for name, least in (("workers", 0), ("threads", 1), ("ahead", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")

    def batches(self, dataset: grain.MapDataset, finish: Callable[[Batch], Batch] = lambda batch: batch) -> Batches:
        """Iterates a data set whose elements are whole batches; `finish` is applied in this process."""
        options = grain.ReadOptions(num_threads=self.threads, prefetch_buffer_size=max(self.ahead, self.threads))
        iterable = dataset.to_iter_dataset(options)
        if self.workers:
            if not flags.FLAGS.is_parsed():  # Grain reads absl's flags, which only programs on absl parse
                flags.FLAGS.mark_as_parsed()
            iterable = iterable.mp_prefetch(
                grain.MultiprocessingOptions(num_workers=self.workers, per_worker_buffer_size=1)
            )
        return Batches(iterable, finish)


READ_AHEAD = Reading()


def check_batch(batch: int, host: int, hosts: int) -> int:
    """The rows of a global batch that one host holds.

    Raises:
      ValueError: the batch is empty or does not divide among the hosts, or there is no such host.
    """
    if batch < 1:
        raise ValueError(f"the global batch must be at least 1, got {batch}")
    if hosts < 1 or not 0 <= host < hosts:
        raise ValueError(f"host {host} of {hosts} does not exist; hosts are numbered from 0")
    if batch % hosts:
        raise ValueError(f"a global batch of {batch} does not divide among {hosts} hosts; make it a multiple")
    return batch // hosts


class Rows(grain.MapDataset):
    """Element i is one host's rows of global batch `first` + i, equations (1) and (4), stacked by key.

    Attributes:
      examples: a data set of single examples that any position may be asked of, later epochs included.
    """

    def __init__(self, examples: grain.MapDataset, *, batch: int, host: int, hosts: int, first: int):
        super().__init__(examples)
        self._batch, self._first = batch, first
        self._rows = check_batch(batch, host, hosts)
        self._offset = host * self._rows

    def __len__(self) -> int:
        return LAST_POSITION // self._batch - self._first

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self.slice(index)
        start = (self._first + index) * self._batch + self._offset
        return stack((self._parent[position] for position in range(start, start + self._rows)), self._rows)


def stack(examples: Iterable[dict[str, Any]], count: int) -> Batch:
    """`count` examples of equal shapes → one array per key.

    Images are copied one by one as they come, while they are in the processor's cache, and let go.

    Raises:
      ValueError: two differ in shape.
    """
    images: dict[str, np.ndarray] = {}
    others: dict[str, list[Any]] = {}
    keys: list[str] = []
    for row, example in enumerate(examples):
        keys = keys or list(example)
        for key, value in example.items():
            if np.ndim(value) != 3:
                others.setdefault(key, []).append(value)
                continue
            if key not in images:
                images[key] = np.empty((count, *value.shape), value.dtype)
            _copy(value, images[key][row])
    return {key: images[key] if key in images else np.stack(others[key]) for key in keys}


def _copy(image: np.ndarray, target: np.ndarray) -> None:
    """Copies (y, x, c) by whole pixels: of mirrored images, which are views, that takes half the time."""
    if image.shape != target.shape:
        raise ValueError(f"an image of shape {image.shape} is among images of {target.shape}")
    pixel = np.dtype((np.void, target.shape[-1] * target.itemsize))
    target.view(pixel)[...] = image.view(pixel)


class Examples(grain.MapDataset):
    """Element p is the image at position p of an order, changed at random by (3).

    One step for all of it, since every further one of Grain's costs what a tenth of decoding does.

    Args:
      order: numbers of images.
      images: what is there by number.
      changes: transforms, applied in turn, and the seed of each.
    """

    def __init__(self, order: grain.MapDataset, images: Any, changes: Sequence[tuple[RandomMap, int]]):
        super().__init__(order)
        self._images = images
        self._changes = [
            (change.random_map, np.random.Philox(seed).state["state"]["key"]) for change, seed in changes
        ]

    def __len__(self) -> int:
        return len(self._parent)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self.slice(index)
        element = self._images[self._parent[index]]
        for change, key in self._changes:  # each position has a stream of its own, as in Grain's `random_map`
            element = change(element, np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, index])))
        return element


def ordered(source: Any, seed: int) -> grain.MapDataset:
    """Equation (2), numbers of a source's images: epoch after epoch, each in its own order.

    The parts of a mixture are shuffled by themselves and dealt out by weight, evenly, at any position the same.
    """
    numbers = grain.MapDataset.range(len(source))
    if not isinstance(source, Mixture):
        return shuffled(numbers, derived_seed(seed, "order"))
    return mixed(numbers, source.starts, source, seed)


def mixed(images: grain.MapDataset, starts: Sequence[int], source: Mixture, seed: int) -> grain.MapDataset:
    """The parts of a mixture, which begin at `starts` of `images`, dealt out by weight."""
    parts = []
    for number, (start, stop) in enumerate(itertools.pairwise(starts)):
        parts.append(shuffled(images[start:stop], derived_seed(seed, f"order of part {number}")).repeat())
    return grain.MapDataset.mix(parts, weights=source.weights)


def shuffled(examples: grain.MapDataset, seed: int) -> grain.MapDataset:
    """The epochs of a data set one after the other, each in its own order; any position may be asked of it."""
    return examples.shuffle(seed=seed)


def derived_seed(seed: int, purpose: str) -> int:
    """A 32-bit seed for one purpose, independent of those for others.

    Raises:
      ValueError: `seed` is negative.
    """
    if seed < 0:
        raise ValueError(f"the data seed must be at least 0, got {seed}")
    return int.from_bytes(hashlib.sha256(f"{seed}/{purpose}".encode()).digest()[:4], "little")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loader:
    """Endless shuffled batches, equations (1) to (4).

    Attributes:
      source: where images come from; a `Mixture` gives its parts by weight.
      batch: the global batch size, over all hosts; may exceed the number of images.
      seed: decides order and augmentation.
      image_size: side of the square images it yields.
      flip: mirror half of them.
      crop: one of `CROPS`.
      crop_area: smallest and largest share of an image's area in a random resized crop.
      captions: yield a caption with each image, where the source has them.
      caption_dropout: share of captions left empty.
      host, hosts: which rows this process yields.
      reading: processes, threads and batches ahead.
      keep: hold decoded images in memory when all of them take no more than this many bytes.
      tolerate: how many different images may be undecodable; each is replaced by a fixed other.
      bad_images: a file that names them, appended to, or None.
    """

    source: Source
    batch: int
    seed: int
    image_size: int
    flip: bool
    crop: str = "adm_centre"
    crop_area: tuple[float, float] = (0.08, 1.0)
    captions: bool = True
    caption_dropout: float = 0.0
    host: int = 0
    hosts: int = 1
    reading: Reading = READ_AHEAD
    keep: int = 256 * 2**20
    tolerate: int = 100
    bad_images: Path | None = None

    def __post_init__(self) -> None:
        check_batch(self.batch, self.host, self.hosts)
        if len(self.source) == 0:
            raise ValueError("the data source has no images")
        if self.crop not in CROPS:
            raise ValueError(f"crop {self.crop!r} is unknown; known are {', '.join(CROPS)}")
        if not 0 <= self.caption_dropout <= 1:
            raise ValueError(f"the share of captions left empty must be in [0, 1], got {self.caption_dropout}")

    @property
    def steps_per_epoch(self) -> float:
        """Batches in one pass over the source."""
        return len(self.source) / self.batch

    def at(self, step: int) -> Batches:
        """This host's rows of the batches from `step` on.

        Yields:
          {"image": uint8 (rows, size, size, 3), "label": int32 (rows,), "index": int64 (rows,)}, and "caption", text
          (rows,), where the source has captions. "index" is of the image shown, replacement or not.

        Iterating raises:
          TooManyBadImages: more than `tolerate` cannot be decoded.

        Raises:
          ValueError: `step` is negative.
        """
        if step < 0:
            raise ValueError(f"a step is at least 0, got {step}")
        changes: dict[str, RandomMap] = {}
        if self.crop == "random_resized":
            changes["crop"] = RandomResizedCrop(size=self.image_size, area=self.crop_area)
        if self.flip:
            changes["flip"] = RandomFlip()
        if getattr(self.source, "captioned", False) and self.captions:
            changes["caption"] = ChooseCaption(dropout=self.caption_dropout)
        seeded = [(change, derived_seed(self.seed, purpose)) for purpose, change in changes.items()]
        examples = Examples(ordered(self.source, self.seed), self._images, seeded)
        rows = Rows(examples, batch=self.batch, host=self.host, hosts=self.hosts, first=step)
        return self.reading.batches(rows, self._noted)

    @functools.cached_property
    def bad(self) -> BadImages:
        """The undecodable images met so far."""
        return BadImages(self.source, self.tolerate, self.bad_images)

    def _noted(self, batch: Batch) -> Batch:
        asked = batch.pop("asked")
        for position in asked[asked != batch["index"]]:
            self.bad.note(int(position))
        return batch

    @functools.cached_property
    def _images(self) -> Readable | Cropped | InMemory:
        readable = Readable(self.source, captions=self.captions)
        if self.crop != "adm_centre":
            return readable
        cropped = Cropped(readable, self.image_size)
        if self.reading.workers == 0 and 3 * self.image_size**2 * len(self.source) <= self.keep:
            return InMemory(cropped, self.image_size)
        return cropped


class Cropped:
    """A source cropped to one size."""

    def __init__(self, source: Readable, image_size: int):
        self._source, self._size = source, image_size

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, position: int) -> dict[str, Any]:
        element = self._source[position]
        return element | {"image": adm_centre_crop(element["image"], self._size)}


class InMemory:
    """The same, each image decoded the first time it is asked for and kept."""

    def __init__(self, source: Cropped, image_size: int):
        self._source = source
        self._images = np.empty((len(source), image_size, image_size, 3), np.uint8)
        self._rest: list[dict[str, Any] | None] = [None] * len(source)

    def __len__(self) -> int:
        return len(self._rest)

    def __getitem__(self, position: int) -> dict[str, Any]:
        rest = self._rest[position]
        if rest is None:
            element = self._source[position]
            self._images[position] = element["image"]
            rest = self._rest[position] = {key: value for key, value in element.items() if key != "image"}
        return {"image": self._images[position], **rest}


def ordered_batches(
    source: Source,
    *,
    batch: int,
    image_size: int,
    host: int = 0,
    hosts: int = 1,
    start: int = 0,
    stop: int | None = None,
    reading: Reading = READ_AHEAD,
    bad: BadImages | None = None,
) -> Batches:
    """One pass over images `start` to `stop` in order, every host the same number of batches.

    Batches are as `Loader.at` yields them, every caption kept ("captions", a JSON list per row), and "mask" (rows,),
    False for the rows that fill up the last batch and for images that cannot be decoded; such rows are black.

    Args:
      bad: takes down the undecodable ones; by default 100 are tolerated.
    """
    stop = len(source) if stop is None else min(stop, len(source))
    padded = Padded(source, image_size=image_size, start=start, stop=stop)
    steps = -(-len(padded) // batch)
    rows = Rows(padded, batch=batch, host=host, hosts=hosts, first=0)
    bad = bad or BadImages(source, limit=100)

    def noted(batch: Batch) -> Batch:
        for position in batch["index"][batch.pop("bad")]:
            bad.note(int(position))
        return batch

    return reading.batches(rows[:steps], noted)


class Padded(grain.MapDataset):
    """Images `start` to `stop` cropped, with a mask and whether they are "bad"; then black ones without end."""

    def __init__(self, source: Source, *, image_size: int, start: int, stop: int):
        super().__init__()
        self._source, self._size, self._start, self._stop = source, image_size, start, stop

    def __len__(self) -> int:
        return max(self._stop - self._start, 0)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self.slice(index)
        position = self._start + index
        beyond = position >= self._stop
        try:
            element = None if beyond else self._source[position]
        except BadImage:
            element = None
        if element is None:
            black = np.zeros((self._size, self._size, 3), np.uint8)
            known = {"image": black, "label": np.int32(-1), "index": np.int64(position)}
            element = known | ({"captions": ()} if getattr(self._source, "captioned", False) else {})
            shown = False
        else:
            element = element | {"image": adm_centre_crop(element["image"], self._size)}
            shown = True
        if "captions" in element:
            element["captions"] = np.str_(json.dumps(element["captions"], ensure_ascii=False))
        return element | {"mask": np.bool_(shown), "bad": np.bool_(not shown and not beyond)}
