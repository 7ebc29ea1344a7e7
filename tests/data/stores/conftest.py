"""A latent cache of the held-out digits."""

from pathlib import Path

import pytest
from cached_latents import write

from fae_jax.data.sources.digits import DigitsSource


@pytest.fixture(scope="module")
def cache(digits: DigitsSource, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("latents") / "cache"
    write(directory, digits)
    return directory
