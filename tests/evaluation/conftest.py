"""scikit-learn's handwritten digits as the package shows them: 32×32 RGB, every fifth image held out."""

from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from fae_jax.evaluation.metrics import Batch


class Digits(NamedTuple):
    train: Batch
    heldout: Batch


def enlarge(grey: np.ndarray) -> np.ndarray:
    """8×8 values from 0 to 16 as 32×32 RGB bytes, by PIL's bicubic resize."""
    small = Image.fromarray(np.round(grey * (255 / 16)).astype(np.uint8))
    return np.repeat(np.asarray(small.resize((32, 32), Image.Resampling.BICUBIC))[..., None], 3, axis=-1)


@pytest.fixture(scope="session")
def digits() -> Digits:
    data = load_digits()
    images = np.stack([enlarge(image) for image in data.images])
    labels = data.target.astype(np.int64)
    projection = np.random.default_rng(0).normal(size=(64, 12))
    features = data.data @ projection / 16
    held = np.arange(len(labels)) % 5 == 4

    def part(which: np.ndarray) -> Batch:
        return Batch(images=images[which], labels=labels[which], look=lambda name: {"mean": features[which]})

    return Digits(part(~held), part(held))
