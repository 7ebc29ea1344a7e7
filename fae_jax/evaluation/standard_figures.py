"""The three figures that the report knows, with their captions: rebuilt images, features as colours, the nearest.

reconstructions   unseen images over what comes back through the latent
features          unseen images, x and x̂ in the same colours
nearest           samples beside their nearest training images
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from fae_jax.files.paths import Path
from fae_jax.stages.figures import (
    feature_maps,
    least_and_most,
    nearest_pairs,
    reconstruction_pairs,
    write_figure,
)


def write_reconstructions(
    workdir: Path,
    originals: UInt8[np.ndarray, "n y x 3"],
    rebuilt: UInt8[np.ndarray, "n y x 3"],
    *,
    count: int = 20,
) -> Path:
    """The first `count` held-out images over their reconstructions, in rows of ten; returns the PNG's path."""
    figure = reconstruction_pairs(originals[:count], rebuilt[:count])
    return write_figure(workdir, "reconstructions", figure, "Unseen images, and what comes back through the latent.")


def write_features(
    workdir: Path,
    images: UInt8[np.ndarray, "n y x 3"],
    features: Float[np.ndarray, "n t d"],
    reconstructed: Float[np.ndarray, "n t d"],
    grid: tuple[int, int],
    *,
    count: int = 10,
) -> Path:
    """The first `count` held-out images with x and x̂ as colours; returns the PNG's path.

    Raises:
      ValueError: as `feature_colours`.
    """
    figure = feature_maps(images[:count], features[:count], reconstructed[:count], grid)
    caption = (
        "Unseen images, their features x, and the same features after the latent. Red, green and blue are the "
        "three directions in which x varies most, the same for both: equal colours are equal features."
    )
    return write_figure(workdir, "features", figure, caption)


def write_nearest(
    workdir: Path,
    name: str,
    samples: UInt8[np.ndarray, "n y x 3"],
    train_images: UInt8[np.ndarray, "m y x 3"],
    near: Mapping[str, Any],
    *,
    count: int = 24,
) -> Path:
    """Samples beside their nearest training images: the nearest of all, and some on the way to the farthest.

    Args:
      name: of the set of samples, as "guided".
      near: the set's scores under "nearest" (`CopyCheck.as_result`).
    """
    distances, index = np.asarray(near["distances"]), np.asarray(near["index"])
    close = np.zeros(len(samples), bool)
    close[np.asarray(near["close"], int)] = True
    shown = least_and_most(distances, count)
    figure = nearest_pairs(samples[shown], train_images, index[shown], distances[shown], close[shown])
    caption = (
        f"{len(shown)} of {len(samples)} {name} samples, each left of its nearest training image, with their "
        f"distance: first the nearest of all, then an even walk to the farthest. Closer than {near['limit']:.3f} is "
        "framed."
    )
    return write_figure(workdir, "nearest", figure, caption)
