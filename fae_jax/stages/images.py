"""The images of an experiment: which there are, and how they come in batches."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from fae_jax.data.batching import Reading
from fae_jax.data.loader import Loader, ordered_batches
from fae_jax.data.replacement import BadImages, Readable
from fae_jax.data.sources.kinds import WITH_COLUMNS, open_source
from fae_jax.data.sources.listing import Source
from fae_jax.data.sources.mixture import Mixture
from fae_jax.data.transforms import adm_centre_crop
from fae_jax.files.paths import Path

PREVIEWS = 16  # images in a preview


def hosts() -> dict[str, Any]:
    """Which host this is, and of how many, as loaders take it."""
    return {"host": jax.process_index(), "hosts": jax.process_count()}


class Images:
    """The images that the section `data` describes.

    Args:
      data: that section.
      seed: purpose → a seed for it.
      folder: where undecodable images are named.
    """

    def __init__(self, data: Any, seed: Callable[[str], int], folder: Path):
        self.data, self._seed = data, seed
        self._bad = folder / f"bad-images-{jax.process_index()}.txt"

    @property
    def reading(self) -> Reading:
        """How images are read ahead."""
        return Reading(workers=self.data.workers, threads=self.data.threads, ahead=self.data.ahead)

    @property
    def reading_stored(self) -> Reading:
        """The same for what needs no decoding: another process would take longer to hand it on than to read it."""
        return dataclasses.replace(self.reading, workers=0)

    @functools.cache  # noqa: B019 -- lives as long as its process
    def source(self, split: str) -> Source:
        """The images of a split, "train" or "heldout".

        Raises:
          ValueError, FileNotFoundError: see `open_images`.
        """
        return open_images(self.data, split, self._seed("holdout"))

    @property
    def mixture(self) -> Mixture | None:
        """The training images, where they are several sources drawn from by weight."""
        source = self.source("train") if self.data.mixture else None
        return source if isinstance(source, Mixture) else None

    def loader(self, batch: int) -> Loader:
        """Shuffled batches of training images and labels; undecodable ones are named in the working directory."""
        data = self.data
        return Loader(
            source=self.source("train"),
            batch=batch,
            seed=self._seed("data"),
            image_size=data.image_size,
            flip=data.flip,
            crop=data.crop,
            crop_area=data.crop_area,
            captions=False,
            tolerate=data.tolerate,
            bad_images=self._bad,
            reading=self.reading,
            keep=2**40 if data.in_memory else 0,
            **hosts(),
        )

    def ordered(self, split: str, batch: int) -> Any:
        """One pass over a split, in order, in batches of `batch` with a mask."""
        source, size = self.source(split), self.data.image_size
        bad = BadImages(source, self.data.tolerate, self._bad)
        return ordered_batches(source, batch=batch, image_size=size, reading=self.reading, bad=bad, **hosts())

    @functools.cache  # noqa: B019 -- lives as long as its process
    def preview(self) -> dict[str, np.ndarray]:
        """The images shown in previews: held-out ones, or training ones if none are held out."""
        split = "heldout" if self.data.holdout or self.data.heldout_path else "train"
        source, size = Readable(self.source(split)), self.data.image_size
        places = np.linspace(0, len(source) - 1, PREVIEWS).astype(int)
        return {"image": np.stack([adm_centre_crop(source[int(place)]["image"], size) for place in places])}


def open_images(data: Any, split: str, seed: int) -> Source:
    """The images of a split, "train" or "heldout", that the section `data` of a configuration names.

    Args:
      seed: which images are held out, where a share of the source is.

    Raises:
      ValueError, FileNotFoundError: they cannot be used or are not there, or have another number of classes.
    """
    apart = split == "heldout" and data.heldout_path != ""
    path = data.heldout_path if apart else data.path
    opened = functools.partial(
        open_source,
        split="train" if apart else split,
        holdout=data.holdout,
        seed=seed,
        columns=data.columns,
        max_pixels=data.max_pixels,
    )
    source: Source
    if data.mixture:
        kinds, paths, weights = zip(*data.mixture, strict=True)
        parts = [opened(kind, path=place or None) for kind, place in zip(kinds, paths, strict=True)]
        source, path = Mixture(parts, weights), " + ".join(paths)
    else:
        source = opened(data.source, path=path or None)
    captioned = getattr(source, "captioned", False)
    if captioned != data.captions:
        read_by, other = ("captions", "label") if captioned else ("classes", "caption")
        column = f", or name a column in --config.data.columns.{other}" if data.source in WITH_COLUMNS else ""
        raise ValueError(
            f"field data.captions={data.captions}, but {path or data.source} is read by its {read_by}; "
            f"set --config.data.captions={captioned}{column}"
        )
    if not captioned and len(source.classes) != data.classes:
        raise ValueError(
            f"field data.classes={data.classes}, but {path or data.source} has {len(source.classes)}; "
            f"set --config.data.classes={len(source.classes)}"
        )
    return source
