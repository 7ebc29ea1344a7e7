"""How much of an image comes back: PSNR and SSIM, for data sets that do not fit in memory.

Pixels p in [0, 1]:

    PSNR = −10 log₁₀ mean (p − q)²                          dB, at most 100 (identical)       (1)
    SSIM = mean over windows and colours of
           (2 m_p m_q + C₁)(2 s_pq + C₂) / ((m_p² + m_q² + C₁)(s_p² + s_q² + C₂))             (2)

with the Gaussian window of Wang et al. (2004), 11×11 and σ = 1.5, kept inside the image, C₁ = .01², C₂ = .03².
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped
from scipy.ndimage import correlate1d

from fae_jax.files.paths import Path
from fae_jax.files.writing import write_result

PSNR_CEILING = 100.0
WINDOW, SIGMA = 11, 1.5


def unit_pixels(images: Shaped[np.ndarray, "n y x c"]) -> Float[np.ndarray, "n y x c"]:
    """uint8 images, or floats in [−1, 1], as float64 in [0, 1]; floats beyond the range are clipped to it.

    Raises:
      ValueError: pixels that are neither uint8 nor floating point.
    """
    if images.dtype == np.uint8:
        return images.astype(np.float64) / 255.0
    if not np.issubdtype(images.dtype, np.floating):
        raise ValueError(f"images are uint8 or floats in [-1, 1], got {images.dtype}")
    return np.clip((images.astype(np.float64) + 1.0) / 2.0, 0.0, 1.0)


def _pair(images: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if images.shape != others.shape:
        raise ValueError(f"images of shape {images.shape} cannot be compared with {others.shape}")
    return unit_pixels(images), unit_pixels(others)


def psnr(images: Shaped[np.ndarray, "n y x c"], others: Shaped[np.ndarray, "n y x c"]) -> Float[np.ndarray, " n"]:
    """Equation (1) of each image, in dB; uint8, or floats in [−1, 1].

    Raises:
      ValueError: the shapes differ or the pixels are of another kind.
    """
    first, second = _pair(images, others)
    error = np.mean((first - second) ** 2, axis=(1, 2, 3))
    return -10.0 * np.log10(np.maximum(error, 10.0 ** (-PSNR_CEILING / 10.0)))


def _window_mean(values: np.ndarray) -> np.ndarray:
    offsets = np.arange(WINDOW) - WINDOW // 2
    weights = np.exp(-(offsets**2) / (2.0 * SIGMA**2))
    weights /= weights.sum()
    inside = slice(WINDOW // 2, -(WINDOW // 2))
    return correlate1d(correlate1d(values, weights, axis=1), weights, axis=2)[:, inside, inside]


def ssim(images: Shaped[np.ndarray, "n y x c"], others: Shaped[np.ndarray, "n y x c"]) -> Float[np.ndarray, " n"]:
    """Equation (2) of each image, from −1 to 1; uint8, or floats in [−1, 1].

    Raises:
      ValueError: the shapes differ, the pixels are of another kind, or the images are smaller than the window.
    """
    first, second = _pair(images, others)
    if min(first.shape[1:3]) < WINDOW:
        raise ValueError(f"SSIM needs images of at least {WINDOW}×{WINDOW} pixels, got {first.shape[1:3]}")
    c1, c2 = 0.01**2, 0.03**2
    m1, m2 = _window_mean(first), _window_mean(second)
    s1, s2 = _window_mean(first**2) - m1**2, _window_mean(second**2) - m2**2
    s12 = _window_mean(first * second) - m1 * m2
    values = (2 * m1 * m2 + c1) * (2 * s12 + c2) / ((m1**2 + m2**2 + c1) * (s1 + s2 + c2))
    return values.mean(axis=(1, 2, 3))


@dataclasses.dataclass(frozen=True)
class ReconstructionScores:
    """Sums over the images seen so far; parts of a data set are merged by adding them.

    Attributes:
      count: images seen.
      psnr_sum, psnr_lowest: of equation (1), dB.
      ssim_sum, ssim_lowest: of equation (2).
      error_sum: sum of the images' mean squared errors.
    """

    count: int = 0
    psnr_sum: float = 0.0
    psnr_lowest: float = PSNR_CEILING
    ssim_sum: float = 0.0
    ssim_lowest: float = 1.0
    error_sum: float = 0.0

    @classmethod
    def of(cls, images: Shaped[np.ndarray, "n y x c"], others: Shaped[np.ndarray, "n y x c"]) -> ReconstructionScores:
        """The scores of one batch of originals and their reconstructions; an empty batch adds nothing.

        Raises:
          ValueError: as `psnr` and `ssim`.
        """
        if not len(images):
            return cls()
        decibels, similarities = psnr(images, others), ssim(images, others)
        first, second = _pair(images, others)
        return cls(
            count=len(images),
            psnr_sum=float(decibels.sum()),
            psnr_lowest=float(decibels.min()),
            ssim_sum=float(similarities.sum()),
            ssim_lowest=float(similarities.min()),
            error_sum=float(np.mean((first - second) ** 2, axis=(1, 2, 3)).sum()),
        )

    def __add__(self, other: ReconstructionScores) -> ReconstructionScores:
        return ReconstructionScores(
            count=self.count + other.count,
            psnr_sum=self.psnr_sum + other.psnr_sum,
            psnr_lowest=min(self.psnr_lowest, other.psnr_lowest),
            ssim_sum=self.ssim_sum + other.ssim_sum,
            ssim_lowest=min(self.ssim_lowest, other.ssim_lowest),
            error_sum=self.error_sum + other.error_sum,
        )

    def as_result(self) -> dict[str, Any]:
        """What the result file says: count, psnr (mean over images), psnr_lowest, ssim, ssim_lowest, error.

        Raises:
          ValueError: no image was seen.
        """
        if not self.count:
            raise ValueError("no image was reconstructed, so there is no score; check the held-out split")
        return {
            "count": self.count,
            "psnr": self.psnr_sum / self.count,
            "psnr_lowest": self.psnr_lowest,
            "ssim": self.ssim_sum / self.count,
            "ssim_lowest": self.ssim_lowest,
            "mean_squared_error": self.error_sum / self.count,
        }


def evaluate_reconstruction(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> ReconstructionScores:
    """Scores of all (originals, reconstructions) batches, one batch held at a time."""
    return sum((ReconstructionScores.of(*pair) for pair in pairs), start=ReconstructionScores())


def write_reconstruction(workdir: Path, results: dict[str, Any]) -> Path:
    """Writes `evaluation/reconstruction.json` atomically: schema 1, and one `as_result` per name in `sets`.

    Names say which decoder and split, as "heldout" (after fine-tuning) or "heldout_before_finetune"; the first
    is what the report calls the reconstruction.
    """
    return write_result(workdir / "evaluation" / "reconstruction.json", {"schema": 1, "sets": results})
