"""The images of an experiment: which there are, and how they become what networks take."""

from __future__ import annotations

import functools

import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Array

from fae_jax.data.section import DataSection
from fae_jax.data.sources.kinds import open_source
from fae_jax.data.sources.listing import Source
from fae_jax.data.sources.mixture import Mixture
from fae_jax.parallel.hosts import fetch


def to_pixels(image: Array | np.ndarray) -> Array:
    """uint8 → float32 in [−1, 1]."""
    return jnp.asarray(image).astype(jnp.float32) / 127.5 - 1


def to_uint8(images: Array | np.ndarray) -> np.ndarray:
    """[−1, 1] → uint8, rounded and clipped."""
    return fetch(jnp.clip(jnp.round((images + 1) * 127.5), 0, 255).astype(jnp.uint8))


def side_by_side(rows: list[np.ndarray]) -> np.ndarray:
    """Rows of equally many images (b, y, x, 3) as one image, row under row."""
    return rearrange(np.stack(rows), "r b y x c -> (r y) (b x) c")


def open_images(data: DataSection, split: str, seed: int) -> Source:
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
        image_size=data.image_size,
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
        has = "captions and no classes" if captioned else "classes and no captions"
        raise ValueError(
            f"field data.captions={data.captions}, but {path or data.source} has {has}; "
            f"set --config.data.captions={captioned}"
        )
    if not captioned and len(source.classes) != data.classes:
        raise ValueError(
            f"field data.classes={data.classes}, but {path or data.source} has {len(source.classes)}; "
            f"set --config.data.classes={len(source.classes)}"
        )
    return source
