"""The feature store: every training image through the frozen encoder once, for stages that would do it every step.

image → encoder (x) → record, statistics

`data.features` names a folder; in it each store has a folder of its own, named after the hash of what made it:
encoder and weights, its settings, source, crop, size, and whether mirrored twins are in it. Experiments with the same
identity share one. What it takes is known beforehand:

    bytes = images · (2 with twins, else 1) · (16 + 2 · tokens · channels)                                  (1)

ImageNet through DINOv2-g at 16×16 tokens, with twins: 2.02 TB; Imagenette's 9,469 through 768 channels: 3.7 GB.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import Array

from fae_jax.data.batching import READ_AHEAD, Reading
from fae_jax.data.sources.listing import Source
from fae_jax.data.stores.disk_space import bytes_to_write, check_room
from fae_jax.data.stores.latent_writer import wait_for_hosts, write_cache
from fae_jax.data.stores.latents import HEADER, CacheIdentity, LatentSource, open_cache
from fae_jax.files.paths import Path
from fae_jax.files.progress import report_progress, say
from fae_jax.parallel.hosts import first_says


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureStore:
    """One store, written or not.

    Attributes:
      root: `data.features`.
      identity: what it is of.
      source: the training images.
      shape: tokens and channels of the features.
      encode: uint8 images (batch, size, size, 3) → features (batch, n, d), on this host alone.
      batch: images encoded at once, on this host.
      shard_size: images per file.
      reading: how images are read ahead.
    """

    root: Path
    identity: CacheIdentity
    source: Source
    shape: tuple[int, int]
    encode: Callable[[np.ndarray], Array]
    batch: int
    shard_size: int
    reading: Reading = READ_AHEAD

    @property
    def directory(self) -> Path:
        """Where it is."""
        return self.root / self.identity.hash

    @property
    def finished(self) -> bool:
        """Whether all of it is there."""
        return (self.directory / HEADER).is_file()

    def bytes_to_write(self) -> int:
        """Equation (1), less what an interrupted run has left."""
        return bytes_to_write(str(self.directory), self.identity, len(self.source), self.shape)

    def check_room(self) -> str:
        """Refuses a store for which the disk lacks room, before anything is written; otherwise says how it stands.

        Raises:
          ValueError: the disk is too small, or a file is in the way.
        """
        return check_room(
            str(self.root),
            self.bytes_to_write(),
            f"the feature store of {len(self.source):,} images",
            "name another disk with --config.data.features, or leave it empty",
        )

    def open(self) -> LatentSource:
        """The finished store, written first where it is not; an interrupted one is gone on with.

        Raises:
          ValueError, FileNotFoundError, OSError: see `write_cache` and `open_cache`.
        """
        # What the first host sees: the last to write may have finished before another looks.
        if not first_says(self.finished):
            say(f"features: {self.check_room()}")
            write_cache(
                self.directory,
                self.identity,
                self.source,
                lambda images: (self.encode(images),),
                batch=self.batch,
                shard_size=self.shard_size,
                host=jax.process_index(),
                hosts=jax.process_count(),
                progress=report_progress("features"),
                reading=self.reading,
            )
            wait_for_hosts(
                self.directory, self.identity, self.source, shard_size=self.shard_size, hosts=jax.process_count()
            )
        return open_cache(self.directory, self.identity)
