"""Sources by the configuration's words: the kinds there are, and opening one."""

from __future__ import annotations

from typing import Any

from fae_jax.data.decode import MAX_PIXELS
from fae_jax.data.sources.columns import UNNAMED, Columns
from fae_jax.data.sources.listing import SPLITS, Source
from fae_jax.data.sources.stored import StoredSource
from fae_jax.files import storage
from fae_jax.files.names import nearest
from fae_jax.kinds import own

KINDS = {
    "digits": "fae_jax.data.sources.digits:DigitsSource",
    "digit_captions": "fae_jax.data.sources.digit_captions:DigitCaptionsSource",
    "folder": "fae_jax.data.sources.folder:FolderSource",
    "tar": "fae_jax.data.sources.tars:TarSource",
    "tfds": "fae_jax.data.sources.tfds:TfdsSource",
    "parquet": "fae_jax.data.sources.parquet:ParquetSource",
    "array_record": "fae_jax.data.sources.packed:PackedSource",
    "coco": "fae_jax.data.sources.coco:CocoSource",
}
WITH_COLUMNS = ("tfds", "parquet")


def open_source(
    kind: str,
    *,
    path: str | None,
    split: str,
    holdout: float,
    seed: int,
    columns: Columns = UNNAMED,
    max_pixels: int = MAX_PIXELS,
) -> Source:
    """Opens a source.

    Args:
      kind: a key of `KINDS`.
      path: where the images are; None for those of digits, which bring their own.
      split: "train" or "heldout".
      holdout: the share of each class that is held out, in [0, 1).
      seed: decides which images are held out.
      columns: which columns are read, for the kinds in `WITH_COLUMNS`; others have none.
      max_pixels: of an image, see `decode_image`.

    Raises:
      ValueError: an unknown kind or split, a share outside [0, 1), or a source that cannot be used as it is.
      FileNotFoundError: nothing is at `path`.
    """
    if kind not in KINDS:
        raise ValueError(f"data source {kind!r} is unknown; {nearest(kind, sorted(KINDS), limit=len(KINDS))}")
    if split not in SPLITS:
        raise ValueError(f"split {split!r} is unknown; known are {', '.join(SPLITS)}")
    if not 0 <= holdout < 1:
        raise ValueError(f"the held-out share must be at least 0 and below 1, got {holdout}")
    more: dict[str, Any] = {"columns": columns} if kind in WITH_COLUMNS else {}
    if not kind.startswith("digit"):
        if not path:
            raise ValueError(f"a source of kind {kind!r} needs a path")
        more["path"] = storage.from_root(path)
    source: Source = own(KINDS, kind)(split=split, holdout=holdout, seed=seed, **more)
    if isinstance(source, StoredSource):
        source.max_pixels = max_pixels
    return source
