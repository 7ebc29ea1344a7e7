"""A bundle on the hub is a model by its name."""

from pathlib import Path

import numpy as np
import pytest
from hub_server import Hub
from running import fae

import fae_jax


def test_a_name_on_the_hub_is_the_model(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "bundle"
    fae("export", "--workdir", finished, "--out", folder)
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    weights = {name: data for name, data in files.items() if name != "bundle.json"}
    hub = Hub({"someone/fae": files, "someone/else": weights})
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    with hub.serve() as endpoint:
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        pulled = fae_jax.load("someone/fae")
        with pytest.raises(FileNotFoundError, match="someone/else holds no bundle.json"):
            fae_jax.load("someone/else")
    ours, theirs = (model.generate(labels=[3], seed=2) for model in (pulled, fae_jax.load(finished)))
    np.testing.assert_array_equal(ours, theirs)
    assert pulled.encode(np.zeros((1, 32, 32, 3), np.float32)).shape == (1, 4, 4, 4)
