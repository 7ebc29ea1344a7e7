"""Every block of docs/extending.md, installed as a package of its own, through the program."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from running import ROOT, TINY, environment, fae

PAGE = (ROOT / "docs" / "extending.md").read_text()
SHORT = ["--config.generator.steps=2", "--config.finetune.steps=2", "--config.pixels.steps=2"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The environment of processes that see the package of the page: a module and its metadata on the path."""
    root = tmp_path_factory.mktemp("site")
    (root / "my_package.py").write_text("\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.S)))
    about = root / "my_package-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: my_package\nVersion: 1.0\n")
    points = re.sub(r'\[project\.entry-points\."(.*?)"\]', r"[\1]", re.findall(r"```toml\n(.*?)```", PAGE, re.S)[0])
    (about / "entry_points.txt").write_text(re.sub(r'= "(.*?)"', r"= \1", points))
    return {"env": environment(PYTHONPATH=f"{ROOT}:{root}")}


@pytest.mark.slow
def test_a_generator_and_a_pixel_loss_of_another_package_go_through_every_command(installed: dict, tmp_path: Path):
    workdir = tmp_path / "run"
    chosen = ["--config.generator.kind=mean", '--config.pixels.losses=(("charbonnier", 1.0),)', *SHORT]
    fae("run", "--config", TINY, "--workdir", workdir, *chosen, "--config.generator.mean.spread=0.5", **installed)
    kept = json.loads((workdir / "config.json").read_text())["generator"]
    assert kept["mean"] == {"spread": 0.5} and "flow_matching" not in kept
    fae("sample", "--workdir", workdir, "--number", 3, **installed)
    settings = json.loads((workdir / "samples" / "samples" / "settings.json").read_text())
    assert settings["function_evaluations"] == 1
    fae("evaluate", "--workdir", workdir, "--task", "generation", **installed)
    assert set(json.loads((workdir / "evaluation" / "generation.json").read_text())["sets"]) == {"unguided", "guided"}
    fae("export", "--workdir", workdir, "--out", tmp_path / "bundle", **installed)
    fae("export", "--workdir", workdir, "--format", "card", "--out", tmp_path / "card", **installed)
    assert (tmp_path / "card" / "CARD.txt").read_text() == "tiny: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9\n"
    out, _ = fae("compile", "--config", TINY, "--stage", "generator", "--stage", "sample", *chosen, **installed)
    assert out.count("fits") == 2
    _, err = fae("sample", "--workdir", workdir, "--number", 3, code=2)
    assert len(err.splitlines()) == 1 and "field generator.mean.spread does not exist" in err


def test_a_tokenizer_of_another_package_is_cached_generated_and_decoded(installed: dict, tmp_path: Path):
    workdir = tmp_path / "run"
    words = [
        "--config",
        TINY,
        "--workdir",
        workdir,
        "--config.tokenizer.kind=averages",
        "--config.encoder.train=False",
        "--config.generator.steps=2",
    ]
    fae("run", *words, **installed)
    assert not any((workdir / stage).exists() for stage in ("encoder", "features", "pixels", "finetune"))
    fae("sample", "--workdir", workdir, "--number", 3, **installed)
    images = np.load(workdir / "samples" / "samples" / "samples.npz")["images"]
    assert images.shape == (3, 32, 32, 3) and (images[:, :8, :8] == images[:, :1, :1]).all()
    out, _ = fae("compile", *words[:2], *words[4:], **installed)
    assert [line.split()[0] for line in out.splitlines()] == ["cache", "generator", "sample"]
    _, err = fae("train", "pixels", *words, code=2, **installed)
    assert "the tokenizer 'averages' has no stage pixels" in err
