"""The feature store: every training picture through the frozen encoder once, for stages that would do it every step.

picture → encoder (x) → record, statistics

`data.features` names a folder; in it each store has a folder of its own, named after the hash of what made it:
encoder and weights, its settings, source, crop, size, and whether mirrored twins are in it. Experiments with the same
identity share one. What it takes is known beforehand:

    bytes = pictures · (2 with twins, else 1) · (16 + 2 · tokens · channels)                                  (1)

ImageNet through DINOv2-g at 16×16 tokens, with twins: 2.02 TB; Imagenette's 9,469 through 768 channels: 3.7 GB.
"""

from __future__ import annotations

import dataclasses
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Array

from fae_jax.data.latent_writer import write_cache
from fae_jax.data.latents import FEATURES, HEADER, CacheIdentity, LatentSource, open_cache, planned_bytes
from fae_jax.data.loader import READ_AHEAD, Reading
from fae_jax.data.sources import Source
from fae_jax.parallel.hosts import first_says, wait_for_all

REPORT_EVERY = 10.0  # seconds between lines of progress
MARGIN = 1.01  # the files' own index beside equation (1)


def report_progress(what: str) -> Callable[[int, int], None]:
    """A function of (pictures done, pictures in all) that prints a line now and then."""
    begun = last = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal last
        if done == total or time.monotonic() - last > REPORT_EVERY:
            last = time.monotonic()
            rate = done / max(last - begun, 1e-9)
            print(f"{what}: {done} of {total} pictures, {rate:.3g} pictures/s", file=sys.stderr, flush=True)

    return progress


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureStore:
    """One store, written or not.

    Attributes:
      root: `data.features`.
      identity: what it is of.
      source: the training pictures.
      shape: tokens and channels of the features.
      encode: uint8 pictures (batch, size, size, 3) → features (batch, n, d), on this host alone.
      batch: pictures encoded at once, on this host.
      shard_size: pictures per file.
      reading: how pictures are read ahead.
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
        if self.finished:
            return 0
        planned = MARGIN * planned_bytes(len(self.source), self.shape, self.identity.flip, FEATURES)
        written = sum(file.stat().st_size for file in self.directory.glob("shard-*.array_record"))
        return max(round(planned) - written, 0)

    def check_room(self) -> None:
        """Refuses a store for which the disk lacks room, before anything is written.

        Raises:
          ValueError: the disk is too small, or a file is in the way.
        """
        there = next(folder for folder in (self.root, *self.root.absolute().parents) if folder.exists())
        if not there.is_dir():
            raise ValueError(f"field data.features={str(self.root)!r}: {there} is a file; name a folder")
        wanted, free = self.bytes_to_write(), shutil.disk_usage(there).free
        if wanted > free:
            raise ValueError(
                f"the features of {len(self.source)} pictures take {wanted / 1e9:.1f} GB more in {self.root}, where "
                f"{free / 1e9:.1f} GB are free; name another disk with --config.data.features, or leave it empty"
            )

    def open(self) -> LatentSource:
        """The finished store, written first where it is not; an interrupted one is gone on with.

        Raises:
          ValueError, FileNotFoundError, OSError: see `write_cache` and `open_cache`.
        """
        # What the first host sees: the last to write may have finished before another looks.
        if not first_says(self.finished):
            self.check_room()
            size = self.bytes_to_write()
            if size:
                print(f"features: writing {size / 1e9:.2f} GB to {self.directory}", file=sys.stderr, flush=True)
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
            wait_for_all("feature store written")
        return open_cache(self.directory, self.identity)
