"""Every block of docs/extending.md, and the example package, installed as packages and used through the program."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from running import ROOT, TINY, environment, fae

PAGE = (ROOT / "docs" / "extending.md").read_text()
BLOCKS = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.S))
POINTS = tomllib.loads(re.findall(r"```toml\n(.*?)```", PAGE, re.S)[0])["project"]["entry-points"]
EXAMPLE = ROOT / "examples" / "toy_generator"
SHORT = ["--config.generator.steps=2", "--config.finetune.steps=2", "--config.pixels.steps=2"]


def install(site: Path, name: str, points: dict[str, dict[str, str]]) -> None:
    """The metadata that an installer leaves of a package."""
    about = site / f"{name}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [
        f"[{group}]\n" + "\n".join(f"{key} = {place}" for key, place in points[group].items()) for group in points
    ]
    (about / "entry_points.txt").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The environment of processes that see the package of the page and the example package."""
    site = tmp_path_factory.mktemp("site")
    (site / "my_package.py").write_text(BLOCKS)
    install(site, "my_package", POINTS)
    example = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())
    install(site, "fae_toy", example["project"]["entry-points"])
    return {"env": environment(PYTHONPATH=f"{ROOT}:{site}:{EXAMPLE}")}


def scores(workdir: Path, task: str) -> dict:
    return json.loads((workdir / "evaluation" / f"{task}.json").read_text())


@pytest.mark.slow(seconds=70)
def test_the_example_package_goes_through_every_command(installed: dict, tmp_path: Path):
    workdir = tmp_path / "run"
    chosen = ["--config.generator.kind=gaussian", '--config.pixels.losses=(("charbonnier", 1.0),)', *SHORT]
    with_field = [*chosen, "--config.generator.gaussian.temperature=0.5"]
    fae("run", "--config", TINY, "--workdir", workdir, *with_field, **installed)
    kept = json.loads((workdir / "config.json").read_text())["generator"]
    assert kept["gaussian"] == {"temperature": 0.5} and "flow_matching" not in kept
    fae("sample", "--workdir", workdir, "--number", 3, **installed)
    settings = json.loads((workdir / "samples" / "samples" / "settings.json").read_text())
    assert settings["function_evaluations"] == 1
    metrics = "--config.evaluation.generation.metrics=('sharpness', 'brightness')"
    tasks = ("generation", "latent_range")
    fae("evaluate", "--workdir", workdir, "--task", *tasks, metrics, **installed)
    sets = scores(workdir, "generation")["sets"]
    assert set(sets["guided"]) == {"count", "sampling", "sharpness", "sharpness_beside_heldout", "brightness"}
    assert 0 < sets["guided"]["sharpness"] < 1 and scores(workdir, "latent_range")["highest"] > 0
    page = (workdir / "report.html").read_text()
    assert "sharpness beside heldout" in page and "Latent range" in page
    fae("export", "--workdir", workdir, "--out", tmp_path / "bundle", **installed)
    drawn = f"import fae_jax; print(fae_jax.load({str(tmp_path / 'bundle')!r}).generate([0, 1], guidance=None).shape)"
    command = [sys.executable, "-c", drawn]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300, **installed)
    assert done.stdout == "(2, 32, 32, 3)\n"
    fae("export", "--workdir", workdir, "--format", "card", "--out", tmp_path / "card", **installed)
    assert (tmp_path / "card" / "CARD.txt").read_text() == "tiny: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9\n"
    out, _ = fae("compile", "--config", TINY, "--stage", "generator", "--stage", "sample", *chosen, **installed)
    assert out.count("fits") == 2
    _, err = fae("sample", "--workdir", workdir, "--number", 3, code=2)
    assert len(err.splitlines()) == 1 and "field generator.gaussian.temperature does not exist" in err


@pytest.mark.slow
def test_a_generator_a_condition_and_an_autoencoder_of_the_page(installed: dict, tmp_path: Path):
    workdir = tmp_path / "run"
    chosen = ["--config.generator.kind=mean", "--config.condition.kind=half", *SHORT]
    chosen += ["--config.compressor.kind=two_layers", "--config.feature_decoder.kind=one_layer"]
    fae("run", "--config", TINY, "--workdir", workdir, *chosen, **installed)
    fae("sample", "--workdir", workdir, "--classes", "0,1", "--number", 4, **installed)
    with np.load(workdir / "samples" / "samples" / "samples.npz") as drawn:
        assert drawn["arr_1"].tolist() == [0, 1, 0, 1]
    assert (workdir / "tally" / "images.txt").read_text() == "359"
    assert json.loads(fae("train", "tally", "--workdir", workdir, "--json", **installed)[0])["ran"] == []
    _, err = fae("sample", "--workdir", workdir, "--classes", "2", "--number", 4, code=2, **installed)
    assert len(err.splitlines()) == 1


@pytest.mark.slow
def test_a_tokenizer_of_another_package_is_cached_generated_and_decoded(installed: dict, tmp_path: Path):
    workdir = tmp_path / "run"
    words = [
        "--config",
        TINY,
        "--workdir",
        workdir,
        "--config.tokenizer.kind=averages",
        "--config.generator.flow_matching.network=tokenwise",
        "--config.generator.flow_matching.tokenwise.hidden=8",
        "--config.encoder.train=False",
        "--config.generator.steps=2",
    ]
    fae("run", *words, **installed)
    assert not any((workdir / stage).exists() for stage in ("encoder", "features", "pixels", "finetune"))
    fae("sample", "--workdir", workdir, "--number", 3, **installed)
    images = np.load(workdir / "samples" / "samples" / "samples.npz")["arr_0"]
    assert images.shape == (3, 32, 32, 3) and (images[:, :8, :8] == images[:, :1, :1]).all()
    out, _ = fae("compile", *words[:2], *words[4:], **installed)
    assert [line.split()[0] for line in out.splitlines()] == ["cache", "generator", "sample"]
    _, err = fae("train", "pixels", *words, code=2, **installed)
    assert "the tokenizer 'averages' has no stage pixels" in err


@pytest.mark.slow
def test_a_text_tower_and_a_layout_of_the_page(installed: dict, tmp_path: Path):
    fields = {"data.source": "digit_captions", "data.captions": True, "encoder.train": False, "generator.steps": 2}
    fields |= {"tokenizer.kind": "averages", "condition.kind": "text", "condition.text.tower": "letters"}
    sizes = {"width": 8, "heads": 2, "hidden": 8, "depth": 2}
    fields |= {"generator.flow_matching.network": "mmdit"}
    fields |= {f"generator.flow_matching.mmdit.{name}": size for name, size in sizes.items()}
    words = [f"--config.{name}={value}" for name, value in fields.items()]
    fae("run", "--config", TINY, "--workdir", tmp_path / "run", *words, **installed)
    (tmp_path / "prompts.txt").write_text("a one\na two\n")
    prompts = ("--layout", "numbered", "--prompts", tmp_path / "prompts.txt")
    fae("sample", "--workdir", tmp_path / "run", *prompts, **installed)
    folder = tmp_path / "run" / "samples" / "samples"
    images = {f"{prompt}-{place}.png" for prompt in (0, 1) for place in (0, 1)}
    assert {path.name for path in (folder / "numbered").iterdir()} == images
    assert json.loads((folder / "settings.json").read_text())["text"]["tower"] == "letters"


def test_every_group_has_its_block():
    """The page says where encoders' is."""
    sources = "\n".join(path.read_text() for path in (ROOT / "fae_jax").rglob("*.py"))
    asked = re.findall(r"""\bfind\("(\w+)",|GROUP = "fae_jax\.(\w+)\"""", sources)
    groups = {f"fae_jax.{one or other}" for one, other in asked}
    assert len(groups) > 12 and groups - {"fae_jax.encoders"} == set(POINTS)


@pytest.mark.slow
def test_an_extractor_of_another_package_is_found_and_checked(installed: dict):
    out, err = fae("weights", "check", "colours", "--json", **installed)
    assert json.loads(out.splitlines()[-1])["parameters"] == {"images": 9} and "mean colours" in out + err
    assert "colours" in json.loads(fae("weights", "list", "--json", **installed)[0].splitlines()[-1])["extractors"]
