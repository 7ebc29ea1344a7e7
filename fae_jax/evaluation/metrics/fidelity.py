"""How much of an image comes back: PSNR and SSIM, for data sets that do not fit in memory.

Pixels p in [0, 1]:

    PSNR = −10 log₁₀ mean (p − q)²                          dB, at most 100 (identical)       (1)
    SSIM = mean over windows and colours of
           (2 m_p m_q + C₁)(2 s_pq + C₂) / ((m_p² + m_q² + C₁)(s_p² + s_q² + C₂))             (2)

with the Gaussian window of Wang et al. (2004), 11×11 and σ = 1.5, kept inside the image, C₁ = .01², C₂ = .03².
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped
from scipy.ndimage import correlate1d

from fae_jax.evaluation.metrics import Batch

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


def squared_error(
    images: Shaped[np.ndarray, "n y x c"], others: Shaped[np.ndarray, "n y x c"]
) -> Float[np.ndarray, " n"]:
    """Mean squared difference of each image's pixels in [0, 1]; arguments and errors as in `psnr`."""
    first, second = _pair(images, others)
    return np.mean((first - second) ** 2, axis=(1, 2, 3))


class Fidelity:
    """Reconstructions beside their originals.

    Its scores, for each of `distances`: the mean over images by its name, and the worst image's, NAME_lowest where
    higher values are better and NAME_highest elsewhere; of the squared error the mean alone, which says no more than
    PSNR.

    Attributes:
      distances: name → a function of originals and reconstructions, uint8, to a number for each image.
    """

    compares = "originals"
    higher: tuple[str, ...] = ("psnr", "psnr_lowest", "ssim", "ssim_lowest")
    distances: Mapping[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
        "psnr": psnr,
        "ssim": ssim,
        "mean_squared_error": squared_error,
    }

    def __init__(self) -> None:
        self._values: dict[str, list[np.ndarray]] = {name: [] for name in self.distances}

    @classmethod
    def build(cls, section: None, classes: Sequence[str]) -> Fidelity:
        return cls()

    def update(self, batch: Batch) -> None:
        """Raises ValueError: the images are no reconstructions, or as `psnr` and `ssim`."""
        if batch.originals is None:
            raise ValueError("the metric 'fidelity' compares reconstructions with their originals; samples have none")
        for name, distance in self.distances.items():
            self._values[name].append(distance(batch.originals, batch.images))

    def merge(self, other: Fidelity) -> None:
        for name, parts in other._values.items():
            self._values[name] += parts

    def state(self) -> dict[str, np.ndarray]:
        return self.each()

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        self._values = {name: [state[name]] for name in self.distances}

    def each(self) -> dict[str, Float[np.ndarray, " n"]]:
        """The distances of each image, in the order in which they came."""
        return {name: np.concatenate([*parts, []]) for name, parts in self._values.items()}

    def result(self, real: Mapping[str, Fidelity]) -> dict[str, Any]:
        scores: dict[str, Any] = {}
        for name, values in self.each().items():
            if not len(values):
                raise ValueError("no image was reconstructed, so there is no score; check the held-out split")
            scores[name] = float(values.mean())
            if name in self.higher:
                scores[f"{name}_lowest"] = float(values.min())
            elif name != "mean_squared_error":
                scores[f"{name}_highest"] = float(values.max())
        return scores
