"""Small sources for the data tests, and Grain's flags, which its worker processes want parsed."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from absl import flags
from PIL import Image

from fae_jax.data.digits import DigitsSource

flags.FLAGS.mark_as_parsed()


@pytest.fixture(scope="session")
def digits() -> DigitsSource:
    return DigitsSource(split="heldout", holdout=0.2, seed=0)


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 3 classes of 13 PNG pictures of odd sizes, each of smooth noise."""
    root, rng = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    for label in ("cat", "dog", "eel"):
        (root / label).mkdir()
        for number in range(13):
            height, width = rng.integers(20, 90, 2)
            coarse = Image.fromarray(rng.integers(0, 256, (7, 5, 3), dtype=np.uint8))
            coarse.resize((width, height), Image.Resampling.BICUBIC).save(root / label / f"{number}.png")
    return root


@pytest.fixture(scope="session")
def assert_equal() -> Callable[..., None]:
    """Compares two lists of batches bit for bit, dtypes included."""

    def check(left: list[dict[str, np.ndarray]], right: list[dict[str, np.ndarray]]) -> None:
        assert len(left) == len(right)
        for step, (a, b) in enumerate(zip(left, right, strict=True)):
            assert a.keys() == b.keys()
            for key in a:
                assert a[key].dtype == b[key].dtype
                np.testing.assert_array_equal(a[key], b[key], f"step {step}, {key}")

    return check
