"""Batches of cached posteriors, with the loader's promise: batch k is a function of (cache, seed, k).

Order and rows are as in `loader`, equations (1), (2) and (4). Of an image and its mirrored twin, example j of
batch k takes view b_j, the j-th of B fair bits drawn from (seed, k). A feature store is read in the same way, and the
images that its features are of can be read beside them.
"""

from __future__ import annotations

import bisect
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grain
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from fae_jax.autoencoder.posterior import Posterior
from fae_jax.data.batching import LAST_POSITION, READ_AHEAD, Batches, Reading, check_batch, derived_seed, stack
from fae_jax.data.loader import ordered
from fae_jax.data.sources.listing import Source
from fae_jax.data.sources.mixture import Drawn, Mixture
from fae_jax.data.stores.latents import LatentSource
from fae_jax.data.stores.statistics import LatentStatistics
from fae_jax.data.transforms import adm_centre_crop


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentLoader:
    """Endless shuffled batches of posteriors.

    Attributes:
      source: an opened cache.
      batch: the global batch size, over all hosts; may exceed the number of images.
      seed: decides order and views.
      flip: use the mirrored twins, half of the time.
      captions: yield a caption with each image, where the cache has them.
      caption_dropout: share of captions left empty.
      read: captions → fields of a batch that take their place, such as token numbers; None for the texts themselves.
      mixture: the sources that were encoded as one, which then are drawn from by weight, as `Loader` draws.
      images: the source that was encoded, to read the images as well; None for what is stored alone.
      image_size: side of those images.
      host, hosts: which rows this process yields.
      reading: processes, threads and batches ahead.
    """

    source: LatentSource
    batch: int
    seed: int
    flip: bool
    captions: bool = True
    caption_dropout: float = 0.0
    read: Callable[[Sequence[str]], Mapping[str, np.ndarray]] | None = None
    mixture: Mixture | Drawn | None = None
    images: Source | None = None
    image_size: int = 0
    host: int = 0
    hosts: int = 1
    reading: Reading = READ_AHEAD

    def __post_init__(self) -> None:
        check_batch(self.batch, self.host, self.hosts)
        if self.flip and self.source.header.views == 1:
            raise ValueError(
                f"{self.source.layout.noun} {self.source.directory} was made without mirrored twins; turn flips off"
            )

    def at(self, step: int) -> Batches:
        """This host's rows of the batches from `step` on.

        Yields:
          {"mean", "log_variance": bfloat16 (rows, n, c), "label": int32 (rows,), "index": int64 (rows,)}, and
          "caption", text (rows,), one of the image's captions or empty, if the cache has captions. A feature store
          gives "features", float16 (rows, n, d), in place of the first two. "image" as `Loader` yields it, where
          images are read.

        Raises:
          ValueError: `step` is negative.
        """
        if step < 0:
            raise ValueError(f"a step is at least 0, got {step}")
        self.source.fetch()
        starts = [self._place(start) for start in self.mixture.starts] if self.mixture else []
        order = ordered(len(self.source), self.seed, self.mixture, starts)
        return self.reading.batches(_LatentRows(order, self, step))

    def _place(self, index: int) -> int:
        """Where in the cache image `index` of the source is, or would be: undecodable ones are not in it."""
        return bisect.bisect_left(range(len(self.source)), index, key=lambda place: self.source[place]["index"])


class _LatentRows(grain.MapDataset):
    def __init__(self, order: grain.MapDataset, loader: LatentLoader, first: int):
        super().__init__(order)
        self._loader, self._first = loader, first
        self._seed, self._caption_seed = (derived_seed(loader.seed, purpose) for purpose in ("view", "caption"))

    def __len__(self) -> int:
        return LAST_POSITION // self._loader.batch - self._first

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self.slice(index)
        loader, step = self._loader, self._first + index
        rows = loader.batch // loader.hosts
        mine = slice(loader.host * rows, (loader.host + 1) * rows)
        views = np.zeros(loader.batch, np.int64)
        if loader.flip:
            bits = np.random.Philox(key=self._seed, counter=[0, 0, 0, step]).random_raw(loader.batch)
            views = (bits >> np.uint64(63)).astype(np.int64)
        start = step * loader.batch
        positions = [self._parent[position] for position in range(start + mine.start, start + mine.stop)]
        batch = loader.source.read(positions, views[mine].tolist())
        if loader.images is not None:
            pairs = zip(batch["index"], views[mine], strict=True)
            images = (self._image(loader.images, int(index), int(view)) for index, view in pairs)
            batch |= stack(({"image": image} for image in images), len(positions))
        captions = batch.pop("captions", None)
        if captions is None and loader.read:
            captions = np.full(len(positions), "[]")  # a batch of images without any
        if captions is not None and loader.captions:
            chosen = self._chosen([json.loads(text) for text in captions], step, mine)
            batch |= loader.read(chosen.tolist()) if loader.read else {"caption": chosen}
        return batch

    def _image(self, source: Source, index: int, view: int) -> np.ndarray:
        image = adm_centre_crop(source[index]["image"], self._loader.image_size)
        return image[:, ::-1] if view else image

    def _chosen(self, captions: list[list[str]], step: int, mine: slice) -> np.ndarray:
        """One caption per row, or none: two fair draws per example of the global batch."""
        draws = np.random.Philox(key=self._caption_seed, counter=[0, 0, 0, step]).random_raw(2 * self._loader.batch)
        keep, which = (draws.reshape(2, -1)[:, mine] >> np.uint64(11)) * 2.0**-53
        dropped = keep < self._loader.caption_dropout
        texts = [
            options[int(w * len(options))] if options else "" for options, w in zip(captions, which, strict=True)
        ]
        return np.array(["" if drop else text for drop, text in zip(dropped, texts, strict=True)])


def sample_latents(
    batch: Mapping[str, Any], keys: Key[Array, " b"], statistics: LatentStatistics
) -> Float[Array, "b n c"]:
    """Draws from the posteriors of a batch, one key per example, and standardises; runs on device, float32."""
    mean, log_variance = (jnp.asarray(batch[name], jnp.float32) for name in ("mean", "log_variance"))
    return statistics.standardise(Posterior(mean, log_variance).sample(keys))
