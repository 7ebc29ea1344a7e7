"""scikit-learn's handwritten digits, 1,797 real 8×8 images of 17 grey levels, enlarged to 32×32.

Enlarging is smooth and can be undone: with D the 8×32 matrix of block means and S penalising second differences,

    U = S⁻¹ Dᵀ (D S⁻¹ Dᵀ)⁻¹,   so that  D U = I                              (1)

U v Uᵀ is the smoothest 32×32 image whose 4×4 block means are the 8×8 image v. Values outside the range of a
pixel are clipped and the means restored by shifting blocks, repeatedly; blocks of pure black or white end up flat.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from fae_jax.data.sources.listing import listing_hash, name_hashes, split_positions

SIDE, BLOCK, LEVELS = 8, 4, 16
SIZE = SIDE * BLOCK


class DigitsSource:
    """The digits as a `Source` of 32×32 images, black background, equal channels."""

    classes = tuple("0123456789")

    def __init__(self, *, split: str, holdout: float, seed: int):
        original, labels = _original()
        names = name_hashes(f"digit {position}" for position in range(len(labels)))
        chosen = split_positions(names, labels, split=split, holdout=holdout, seed=seed)
        self.labels = labels[chosen]
        self.images = _enlarged()[chosen]
        self.fingerprint = listing_hash("digits", chosen, self.labels)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, position: int) -> dict[str, Any]:
        image = np.repeat(self.images[position][..., None], 3, axis=-1)
        return {"image": image, "label": self.labels[position], "index": np.int64(position)}


def enlarge(digits: Float[np.ndarray, "n 64"]) -> UInt8[np.ndarray, "n 32 32"]:
    """Smooth 32×32 images, equation (1), of 8×8 images in 0…16; 4×4 block means undo it to a grey level."""
    target = digits.reshape(-1, SIDE, SIDE) * (255 / LEVELS)
    matrix = _smoothest()
    pixels = matrix @ target @ matrix.T
    for _ in range(12):
        means = np.clip(pixels, 0, 255).reshape(-1, SIDE, BLOCK, SIDE, BLOCK).mean((2, 4))
        pixels = np.clip(pixels, 0, 255) + (target - means).repeat(BLOCK, 1).repeat(BLOCK, 2)
    return np.rint(np.clip(pixels, 0, 255)).astype(np.uint8)


def _smoothest() -> np.ndarray:
    means = np.kron(np.eye(SIDE), np.full((1, BLOCK), 1 / BLOCK))
    bend = np.diff(np.eye(SIZE), n=2, axis=0)
    inverse = np.linalg.inv(bend.T @ bend + 1e-6 * np.eye(SIZE))
    return inverse @ means.T @ np.linalg.inv(means @ inverse @ means.T)


@cache
def _original() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    return digits.data, digits.target.astype(np.int32)


@cache
def _enlarged() -> np.ndarray:
    return enlarge(_original()[0])
