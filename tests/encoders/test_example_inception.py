"""The example package: a real network from outside, found by name, without a change to fae_jax."""

import io
import json
import os
import sys
import tarfile
import tomllib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from fae_jax.cli.program import main
from fae_jax.encoders import registry

EXAMPLE = Path(__file__).parents[2] / "examples" / "inception_encoder"


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The package as an installer would leave it: importable, and its entry points listed."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    folder = tmp_path / f"{project['name']}-{project['version']}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Name: {project['name']}\nVersion: {project['version']}\n")
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {target}" for name, target in points.items())]
    (folder / "entry_points.txt").write_text("\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(EXAMPLE))
    monkeypatch.setattr(registry, "_builders", dict(registry._builders))
    yield
    for name in [name for name in sys.modules if name.startswith("fae_inception")]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def data():
    root = os.environ.get("FAE_REAL_DATA")
    if not root:
        pytest.skip("FAE_REAL_DATA is not set")
    return Path(root)


def make_images(data, count):
    """The first photographs of the validation tar in [−1, 1], and their classes."""
    images, labels = [], []
    with tarfile.open(data / "images" / "imagenette224-val-00000.tar") as archive:
        for member in archive:
            content = archive.extractfile(member).read()
            if member.name.endswith(".jpg"):
                image = Image.open(io.BytesIO(content)).convert("RGB")
                images.append(np.asarray(image, np.float32) / 127.5 - 1)
            elif member.name.endswith(".cls"):
                labels.append(int(content))
            if len(images) == len(labels) == count:
                break
    return np.stack(images), np.array(labels)


def test_it_is_found_by_name_and_asks_for_its_weights(installed):
    assert "inception" in registry.names()
    with pytest.raises(FileNotFoundError, match="set encoder.weights"):
        registry.create("inception", weights=None, image_size=224)


def test_it_is_small():
    lines = (EXAMPLE / "fae_inception" / "encoder.py").read_text().splitlines()
    assert len(lines) <= 40


@pytest.mark.real_data
def test_its_weights_are_listed_and_checked_by_name(installed, data, capsys):
    weights = data / "weights" / "inception_2015_12_05_partial_fp16.npz"
    assert main(["weights", "list", "--json"]) == 0
    assert "inception" in json.loads(capsys.readouterr().out.splitlines()[-1])["registered"]
    assert main(["weights", "check", str(weights), "--as", "inception", "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["tensors"] == 2 * 92 and result["parameters"]["images"] > 15_000_000
    assert main(["weights", "check", "inception"]) == 2
    assert "set encoder.weights" in capsys.readouterr().err


@pytest.mark.real_data
def test_its_features_are_those_of_the_real_network(installed, data):
    weights = data / "weights" / "inception_2015_12_05_partial_fp16.npz"
    encoder = registry.create("inception", weights=str(weights), image_size=224, dtype="float32", scan=False)
    assert (encoder.grid, encoder.width) == ((16, 16), 768) and len(encoder.weights_hash) == 64
    images, labels = make_images(data, 48)
    encode = jax.jit(lambda params, images: (f := encoder.features(params, images), encoder.pool(params, f, None)))
    maps, pooled = (
        np.concatenate(parts)
        for parts in zip(
            *(encode(encoder.params, jnp.asarray(images[i : i + 8])) for i in range(0, 48, 8)), strict=True
        )
    )
    assert maps.shape == (48, 256, 768) and pooled.shape == (48, 1280)
    # measured elsewhere on 400 images: mean −1.14, standard deviations of the channels .61 to 1.19
    assert maps.mean() == pytest.approx(-1.14, abs=0.08)
    spread = maps.reshape(-1, 768).std(axis=0)
    assert np.percentile(spread, 2) > 0.5 and np.percentile(spread, 98) < 1.3
    # its own head tells classes apart: the nearest other image is mostly of the same class (chance: one in ten)
    unit = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
    alike = unit @ unit.T - 2 * np.eye(len(unit))
    assert np.mean(labels[alike.argmax(axis=1)] == labels) > 0.7
