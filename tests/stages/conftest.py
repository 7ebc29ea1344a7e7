"""Images that stages are tried on."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of eight images of noise, 48×40."""
    root, rng = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    for label in ("cat", "dog"):
        (root / label).mkdir()
        for number in range(8):
            Image.fromarray(rng.integers(0, 256, (48, 40, 3), np.uint8)).save(root / label / f"{number}.png")
    return root
