"""Batches of images: batch k is a function of (source, seed, k), whoever asks and however often they restarted.

    position of example j of global batch k:   p = k B + j,   0 ≤ j < B                 (1)
    its image:                               order_e(p mod n),  e = ⌊p / n⌋            (2)
    its augmentation:                          drawn from (seed, p)                      (3)
    host h of H holds rows                     h B/H ≤ j < (h + 1) B/H                   (4)

order_e is a permutation of the n images, a different one for each epoch e, computed index by index (`ORDER`); nothing
is stored, so "go to step k" costs nothing, and the state of the data is the step number. Whole batches are dealt to
worker processes and threads, and taken back in order, so their number is not in any of the equations.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
from collections.abc import Sequence
from typing import Any

import grain
import numpy as np
from grain.experimental import index_shuffle
from grain.transforms import RandomMap

from fae_jax.data.batching import READ_AHEAD, Batch, Batches, Reading, Rows, check_batch, derived_seed
from fae_jax.data.decode import BadImage
from fae_jax.data.replacement import BadImages, Readable
from fae_jax.data.sources.listing import Source
from fae_jax.data.sources.mixture import Drawn, Mixture
from fae_jax.data.transforms import (
    CROPS,
    ChooseCaption,
    RandomFlip,
    RandomResizedCrop,
    adm_centre_crop,
)
from fae_jax.files.paths import Path

# Grain's own `shuffle` has 4 rounds, whose neighbours and successive epochs are correlated: by 107 σ at a lag within
# 256 of 50,000 images, and batches of ImageNet have 22 σ too many pairs of one class (by the statistics of
# tests/data/test_loader.py; 2026-11-30). What 12 come to is in docs/data.md.
ROUNDS = 12
ORDER = f"feistel-{ROUNDS}"  # for records: whoever began with another goes on with none


class Shuffled(grain.MapDataset):
    """Numbers 0 to n − 1 in an order of its own for each epoch, equation (2), without end.

    Args:
      numbers: n of them, fewer than 2³².
      seed: 32 bits.
    """

    def __init__(self, numbers: grain.MapDataset, seed: int):
        super().__init__(numbers)
        self._seed = seed

    def __len__(self) -> int:
        return len(self._parent)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self.slice(index)
        epoch, place = divmod(index, len(self))
        seed = (self._seed + epoch) % 2**32
        return self._parent[index_shuffle(place, max_index=len(self) - 1, seed=seed, rounds=ROUNDS)]


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


def ordered(count: int, seed: int, mixture: Mixture | Drawn | None, starts: Sequence[int] = ()) -> grain.MapDataset:
    """Equation (2), numbers of `count` images, epoch after epoch, each in its own order, without end.

    The parts of a mixture, which begin at `starts`, are shuffled by themselves and dealt out by weight, evenly.
    """
    numbers = grain.MapDataset.range(count)
    if mixture is None:
        return Shuffled(numbers, derived_seed(seed, "order"))
    parts = []
    for number, (start, stop) in enumerate(itertools.pairwise(starts)):
        parts.append(Shuffled(numbers[start:stop], derived_seed(seed, f"order of part {number}")).repeat())
    return grain.MapDataset.mix(parts, weights=mixture.weights)


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

    def at(self, step: int) -> Batches:
        """This host's rows of the batches from `step` on.

        Yields:
          {"image": uint8 (rows, size, size, 3), "label": int32 (rows,), "index": int64 (rows,)}, and "caption", text
          (rows,), where the source has captions. "index" is that of the image given, replacement or not.

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
        mixture = self.source if isinstance(self.source, Mixture) else None
        order = ordered(len(self.source), self.seed, mixture, mixture.starts if mixture else ())
        examples = Examples(order, self._images, seeded)
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
    def _images(self) -> Readable | Cropped:
        readable = Readable(self.source, captions=self.captions)
        if self.crop != "adm_centre":
            return readable
        few = self.reading.workers == 0 and 3 * self.image_size**2 * len(self.source) <= self.keep
        return Cropped(readable, self.image_size, keep=few)


class Cropped:
    """A source cropped to one size; with `keep`, each image is decoded the first time it is asked for, then kept."""

    def __init__(self, source: Readable, image_size: int, *, keep: bool):
        self._source, self._size = source, image_size
        self._images = np.empty((len(source), image_size, image_size, 3), np.uint8) if keep else None
        self._rest: dict[int, dict[str, Any]] = {}

    def __getitem__(self, position: int) -> dict[str, Any]:
        if self._images is not None and position in self._rest:
            return self._rest[position] | {"image": self._images[position]}
        element = self._source[position]
        image = adm_centre_crop(element["image"], self._size)
        if self._images is not None:
            self._images[position] = image
            self._rest[position] = element | {"image": None}
        return element | {"image": image}


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
        element: dict[str, Any] = {"label": np.int32(-1), "index": np.int64(position)}
        if getattr(self._source, "captioned", False):
            element["captions"] = ()
        try:
            element = element if beyond else self._source[position]
            image = None if beyond else adm_centre_crop(element["image"], self._size)
        except BadImage:
            image = None
        there = image is not None
        element["image"] = image if there else np.zeros((self._size, self._size, 3), np.uint8)
        if "captions" in element:
            element["captions"] = np.str_(json.dumps(element["captions"], ensure_ascii=False))
        return element | {"mask": np.bool_(there), "bad": np.bool_(not there and not beyond)}
