"""What configures the images an experiment reads."""

from __future__ import annotations

import dataclasses
from typing import Any

from fae_jax.data.decode import MAX_PIXELS
from fae_jax.data.sources.columns import Columns
from fae_jax.data.sources.kinds import WITH_COLUMNS
from fae_jax.section import are_numbers, as_dict, at_least, numbers, one_of, option, share, subsection


def _parts(value: Any) -> str | None:
    for part in value:
        named = isinstance(part, tuple) and len(part) == 3 and all(isinstance(word, str) for word in part[:2])
        if not named or not are_numbers(part[2:], 1) or part[2] <= 0:
            return "holds (source, path, weight) with weights above 0; one part is written ((source, path, weight),)"
    return None


def _on_a_disk(value: str) -> str | None:
    return "must be a folder on a disk that every host sees" if "://" in value else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSection:
    """Images, and how they are read."""

    source: str = option("folder", "digits, folder, … (fae_jax.data.sources.kinds)")
    path: str = option("", "where the source's images are", path=True)
    columns: Columns = subsection(Columns)
    image_size: int = option(256, "side of the square centre crop, pixels", at_least(1))
    mixture: tuple[Any, ...] = option(
        (), "((source, path, weight), …) instead of source and path: drawn from by weight", _parts, path=True
    )
    crop: str = option(
        "adm_centre",
        "crop of training images: adm_centre or random_resized; the cache's is adm_centre",
        one_of("adm_centre", "random_resized"),
    )
    crop_area: tuple[Any, ...] = option(
        (0.08, 1.0),
        "random_resized: smallest and largest share of the image's area",
        numbers(2, "two shares, 0 < smallest <= largest <= 1", lambda least, most: 0 < least <= most <= 1),
    )
    flip: bool = option(True, "mirror half of the images; the latent cache then holds both")
    captions: bool = option(False, "the images have captions in place of classes")
    holdout: float = option(0.0, "share of a source without validation split that is held out", share)
    heldout_path: str = option(
        "", "where held-out images are, if they are stored apart; then holdout is 0", operational=True, path=True
    )
    features: str = option(
        "", "folder of encoded images, shared by experiments; empty = encode at every step", _on_a_disk, path=True
    )
    classes: int = option(1000, "number of classes", at_least(1))
    max_pixels: int = option(
        MAX_PIXELS,
        "pixels an image may have; a larger JPEG file is read at a half to an eighth of its sides, others are bad",
        at_least(1),
    )
    tolerate: int = option(
        100,
        "images that may be undecodable before a run stops; others take their places",
        at_least(0),
        operational=True,
    )
    workers: int = option(0, "processes that read and decode", at_least(0), operational=True)
    threads: int = option(2, "batches prepared at a time, in each worker", at_least(1), operational=True)
    ahead: int = option(4, "batches kept ready, in each worker: the bound on memory", at_least(1), operational=True)
    in_memory: bool = option(False, "decode every image once and keep it", operational=True)

    def check(self) -> None:
        sources = [part[0] for part in self.mixture] or [self.source]
        for field, name in as_dict(self.columns).items():
            if name and not set(sources).intersection(WITH_COLUMNS):
                raise ValueError(
                    f"columns.{field}={name!r} goes with source {' or '.join(WITH_COLUMNS)}, and this is "
                    f"{', '.join(sources)}: clear it"
                )
        if self.mixture and (self.path or self.heldout_path):
            given = self.path or self.heldout_path
            raise ValueError(f"mixture goes with no other path, got {given!r}: clear one of them")
        if self.features and self.crop != "adm_centre":
            raise ValueError(
                f"crop={self.crop!r} goes with no features, which are of centre crops: clear one of them"
            )
        if self.heldout_path and self.heldout_path == self.path:
            raise ValueError(f"heldout_path={self.path!r} is also the path of the training images: name other images")
        if self.heldout_path and self.holdout:
            raise ValueError(f"holdout={self.holdout} goes with no heldout_path: set it to 0, or clear the path")
