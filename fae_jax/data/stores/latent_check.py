"""Reading all of a finished cache once, to see that it still is what its header says.

records → checksums, numbers, finite values → statistics, equal to those of the header bit for bit
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fae_jax.data.stores.latents import LatentSource, Shard
from fae_jax.data.stores.statistics import LatentStatistics

RECORDS = 256  # read at a time


def check_cache(source: LatentSource, progress: Callable[[int, int], None] | None = None) -> None:
    """Reads every record of a cache.

    Args:
      source: an opened cache.
      progress: called with images done and in all.

    Raises:
      ValueError: a shard cannot be read, or does not hold what its header says; the shard is named.
    """
    begin = 0
    for shard in source.header.shards:
        try:
            wrong = _wrong(source, shard, begin)
        except (OSError, ValueError) as error:
            wrong = str(error)
        if wrong:
            path = f"{source.directory}/{shard.file}"
            raise ValueError(f"shard {path} is damaged: {wrong}; remove it and run {source.layout.maker}")
        begin += shard.images
        if progress:
            progress(begin, len(source))


def _wrong(source: LatentSource, shard: Shard, begin: int) -> str:
    """What is wrong with a shard whose first image is number `begin` of the cache, or nothing."""
    views, statistics, last = source.header.views, LatentStatistics.empty(source.header.shape[1]), shard.first - 1
    for start in range(begin, begin + shard.images, RECORDS):
        positions = np.arange(start, min(start + RECORDS, begin + shard.images)).repeat(views)
        batch = source.read(positions.tolist(), (np.arange(len(positions)) % views).tolist())
        indices = batch["index"].reshape(-1, views)
        if (indices != indices[:, :1]).any() or (np.diff(indices[:, 0], prepend=last) < 1).any():
            return f"images are out of order after image {last}"
        last = int(indices[-1, 0])
        for row in range(len(positions)):
            statistics = statistics.merge(
                LatentStatistics.of_parts(*(batch[name][row] for name in source.layout.parts))
            )
    if last >= shard.first + shard.span:
        return f"it holds image {last}, which is not its own"
    if statistics.to_json() != shard.statistics.to_json():
        return "its statistics are not those of its values"
    return ""
