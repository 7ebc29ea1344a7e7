"""A bundle on the hub is a model by its name."""

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hub_server import COMMIT, Hub
from running import fae

import fae_jax
from fae_jax.commands import export
from fae_jax.errors import RunFailed


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


@pytest.fixture
def exporting(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs `fae export --push` in this process."""
    parser = argparse.ArgumentParser()
    export.add_arguments(parser)
    for name, value in {"HF_HUB_CACHE": tmp_path / "cache", "HF_TOKEN_PATH": tmp_path / "token"}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))

    def run(hub: Hub, *words: str, name: str = "someone/new", token: str = "") -> dict[str, Any]:
        monkeypatch.setenv("HF_TOKEN", token)
        given = ["--workdir", str(finished), "--out", str(tmp_path / "out"), "--push", name, *words]
        with hub.serve() as endpoint:
            monkeypatch.setenv("HF_ENDPOINT", endpoint)
            arguments = parser.parse_args(given)
            arguments.overrides = []
            return export.run(arguments)

    return run


def test_an_export_is_pushed_and_is_private(exporting: Callable[..., Any], tmp_path: Path):
    hub = Hub({})
    hub.writers = ("secret",)
    made = exporting(hub, token="secret")
    folder = tmp_path / "out"
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert hub.repositories == {"someone/new": files} and "bundle.json" in files
    assert made["commit"] == COMMIT and hub.private == {"someone/new": "secret"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"token": ""}, "pushing to someone/new needs a token that may write: set HF_TOKEN or run `hf auth login`"),
        ({"token": "secret", "name": "no name"}, "'no name' is not a hub name to push to: give owner/name"),
    ],
)
def test_what_cannot_be_pushed_is_not_exported(exporting: Callable[..., Any], tmp_path: Path, given, message: str):
    with pytest.raises(ValueError, match=re.escape(message)):
        exporting(Hub({}), **given)
    assert not (tmp_path / "out").exists()


def test_a_push_that_is_refused_keeps_the_folder(exporting: Callable[..., Any], tmp_path: Path):
    with pytest.raises(RunFailed, match=r"refuses access to someone/new \(403\).*hf upload someone/new .*out` sends"):
        exporting(Hub({}), token="reader")
    assert (tmp_path / "out" / "bundle.json").is_file()
