"""Images that cannot be decoded: a fixed other takes their place, it is said, and too many stop the run.

For a bad image i of n, the first good one of i + s, i + 2 s, … (mod n) is used, s = 1 + hash(i) mod (n − 1), or the
next number that has no factor in common with n, so that all are tried:
a function of i alone, so hosts, workers and restarts agree. Elements carry the position that was "asked" for; who
takes batches compares it with "index", so counting needs no word between processes.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from fae_jax.data.decode import BadImage
from fae_jax.data.sources.listing import Source, name_hashes
from fae_jax.files.paths import Path
from fae_jax.files.writing import append_line

TRIES = 64
log = logging.getLogger(__name__)


class TooManyBadImages(OSError):
    """More images cannot be decoded than the run tolerates."""


class Readable:
    """A source whose every position gives an image, with "asked", int64, the position itself.

    Args:
      source: some of whose images may be bad.
      captions: keep "captions", where there are any.
    """

    def __init__(self, source: Source, captions: bool = True):
        self.source, self._captions = source, captions

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, position: int) -> dict[str, Any]:
        for other in self.candidates(position):
            try:
                element = self.source[other] | {"asked": np.int64(position)}
                if not self._captions:
                    element.pop("captions", None)
                return element
            except BadImage as error:
                last = error
        raise TooManyBadImages(f"none of {TRIES} images can be decoded, the last: {last}") from last

    def candidates(self, position: int) -> Iterator[int]:
        """`position`, then its replacements in order, all of them different."""
        yield position
        count = len(self.source)
        stride = 1 + int(name_hashes([f"replacement of {position}"])[0]) % max(count - 1, 1)
        while math.gcd(stride, count) > 1:
            stride += 1
        yield from ((position + k * stride) % count for k in range(1, min(TRIES, count)))


class BadImages:
    """Counts, names and limits the bad images that one process meets.

    Args:
      source: where they are from.
      limit: how many different ones are tolerated.
      file: where to append a line for each, or None.
    """

    def __init__(self, source: Source, limit: int, file: Path | None = None):
        self._source, self._limit, self._file = source, limit, file
        self.reasons: dict[int, str] = {}

    def note(self, position: int) -> None:
        """Takes down a bad image, the first time it is met.

        Raises:
          TooManyBadImages: it is one too many.
        """
        if position in self.reasons:
            return
        try:
            self._source[position]
            reason = f"image {position}: could not be decoded, and now can"
        except BadImage as error:
            reason = str(error)
        self.reasons[position] = reason
        log.warning("left out %s", reason)
        if self._file:
            append_line(self._file, reason)
        if len(self.reasons) > self._limit:
            where = f"; all are named in {self._file}" if self._file else ""
            count = f"{len(self.reasons)} images cannot be decoded, {self._limit} are tolerated"
            raise TooManyBadImages(f"{count}, the last: {reason}{where}")
