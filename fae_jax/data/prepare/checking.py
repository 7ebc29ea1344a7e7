"""Looking at every image of a source once, before anything is trained on it.

Images are read, decoded and measured in parallel, in chunks that are kept, so that an interrupted check goes on.
Each ends up with a size and a hash, or with a reason why it is not used:

    stored bytes → decodes? → large enough, not a ribbon? → caption within bounds? → seen before?
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
import re
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
from pyarrow import feather

from fae_jax.data.decode import MAX_PIXELS, BadImage, decode_image
from fae_jax.data.sources.stored import StoredSource

CHUNK = 1024


@dataclasses.dataclass(frozen=True, kw_only=True)
class Filters:
    """What an image must be, to be used; captions that are addresses or have lost characters never are.

    Attributes:
      min_side: pixels of the shorter side.
      max_aspect: longer side over shorter side.
      max_pixels: see `decode_image`; train with `data.max_pixels` the same.
      min_caption, max_caption: characters of a caption.
      min_letters: share of a caption's characters, spaces aside, that are letters, marks or digits of any script.
      max_repeat: how often a word may follow itself in a caption.
      duplicates: whether files identical to an earlier one are used.
    """

    min_side: int = 1
    max_aspect: float = float("inf")
    max_pixels: int = MAX_PIXELS
    min_caption: int = 0
    max_caption: int = 2**31
    min_letters: float = 0.0
    max_repeat: int = 2**31
    duplicates: bool = True

    def of_size(self, height: int, width: int) -> str:
        """Why an image of this size is not used, or nothing."""
        if min(height, width) < self.min_side:
            return f"its shorter side is under {self.min_side} pixels"
        if max(height, width) > self.max_aspect * min(height, width):
            return f"it is more than {self.max_aspect:g} times as long as wide"
        return ""

    def of_caption(self, caption: str) -> str:
        """Why a caption is not used, or nothing; no language is assumed."""
        if not self.min_caption <= len(caption) <= self.max_caption:
            return f"its caption is not of {self.min_caption} to {self.max_caption} characters"
        if "\ufffd" in caption:
            return "its caption has characters that were lost"
        visible = [character for character in caption if not character.isspace()]
        if sum(unicodedata.category(character)[0] in "LMN" for character in visible) < self.min_letters * len(
            visible
        ):
            return f"its caption is less than {self.min_letters:.0%} letters and digits"
        words = caption.lower().split()
        longest = max((len(list(run)) for _, run in itertools.groupby(words)), default=0)
        if longest > self.max_repeat:
            return f"its caption repeats a word more than {self.max_repeat} times"
        if re.fullmatch(r"\S+://\S+|\S+\.(jpe?g|png|gif|webp|bmp)", caption, re.IGNORECASE):
            return "its caption is an address or a file name"
        return ""


# What is known of an image once it was looked at.
COLUMNS = pyarrow.schema(
    {
        "height": pyarrow.int32(),  # in pixels; 0 if it does not decode
        "width": pyarrow.int32(),
        "size": pyarrow.int64(),  # bytes of the stored file
        "label": pyarrow.int32(),  # its class, −1 if none
        "caption": pyarrow.int32(),  # length of the longest caption, in characters
        "content": pyarrow.uint64(),  # 64 bits of the file's SHA-256
        "reason": pyarrow.string(),  # why it is not used, or ""
        "detail": pyarrow.string(),  # what else is known of that
    }
)
Checked = dict[str, np.ndarray]  # `COLUMNS`, a row per image; and "used", the positions of those that are


def check_source(
    source: StoredSource,
    filters: Filters,
    folder: str | Path,
    *,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Checked:
    """Checks every image; finished chunks in `folder` are kept and used again.

    Args:
      source: all of it is looked at.
      filters: what is required.
      folder: where chunks go; they belong to this source and these filters alone.
      threads: decoding at a time, by default one per processor.
      progress: called with images done and in all.

    Raises:
      OSError: the folder cannot be written.
    """
    mark = json.dumps([source.fingerprint, dataclasses.asdict(filters)], sort_keys=True)
    folder = Path(folder) / hashlib.sha256(mark.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    chunks = []
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        for start in range(0, len(source), CHUNK):
            path, positions = folder / f"{start:012d}.arrow", range(start, min(start + CHUNK, len(source)))
            chunk = _load(path)
            if chunk is None:
                rows = list(pool.map(lambda position: _examine(source, position, filters), positions))
                chunk = pyarrow.Table.from_pylist(rows, COLUMNS)
                feather.write_feather(chunk, path.with_suffix(".part"))
                path.with_suffix(".part").rename(path)
            chunks.append(chunk)
            if progress:
                progress(positions.stop, len(source))
    columns = pyarrow.concat_tables(chunks)
    checked = {name: columns[name].to_numpy() for name in COLUMNS.names}
    checked["used"] = np.flatnonzero(checked["reason"] == "")
    if not filters.duplicates:
        _, first = np.unique(checked["content"][checked["used"]], return_index=True)
        kept = checked["used"][np.sort(first)]
        checked["reason"][np.setdiff1d(checked["used"], kept)] = "it is identical to an earlier one"
        checked["used"] = kept
    return checked


def _load(path: Path) -> pyarrow.Table | None:
    """A chunk that an earlier check finished, or None."""
    try:
        table = feather.read_table(path, memory_map=False)
    except (OSError, pyarrow.ArrowException):
        return None
    return table if table.schema == COLUMNS else None


def _encodable(text: str) -> str:
    """`text` with the bytes of file names that are not UTF-8 written out."""
    return text.encode("utf-8", "backslashreplace").decode()


def _examine(source: StoredSource, position: int, filters: Filters) -> dict[str, Any]:
    row: dict[str, Any] = {"height": 0, "width": 0, "size": 0, "label": -1, "caption": 0, "content": 0, "detail": ""}
    try:
        stored = source.stored(position)
        row |= {"size": len(stored.data), "label": stored.label, "caption": max(map(len, stored.captions), default=0)}
        row["content"] = int.from_bytes(hashlib.sha256(stored.data).digest()[:8], "little")
        if not source.captioned and not 0 <= stored.label < len(source.classes):
            return row | {"reason": "its class is out of range", "detail": str(stored.label)}
        image = decode_image(stored.data, "", filters.max_pixels)
    except BadImage as error:
        return row | {"reason": "it cannot be decoded", "detail": _encodable(str(error).removeprefix(": "))}
    except (OSError, ValueError) as error:
        return row | {"reason": "it cannot be read", "detail": _encodable(" ".join(map(str, error.args)))}
    row |= {"height": image.shape[0], "width": image.shape[1]}
    reasons = [filters.of_size(*image.shape[:2]), *map(filters.of_caption, stored.captions)]
    return row | {"reason": next(filter(None, reasons), "")}
