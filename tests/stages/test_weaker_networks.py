"""A generator with a head in the middle, trained, drawn from and scored; and one guided by another directory."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from running import TINY

import fae_jax
from fae_jax.cli.program import main
from fae_jax.stages.stage import read_record, write_record
from fae_jax.workdir import Workdir

INTERNAL = '((0.0, 1.0, 1.4, "internal"), (0.0, 0.7, 2.0))'


@pytest.fixture(scope="module")
def trained(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished experiment with another generator."""
    workdir = tmp_path_factory.mktemp("middle") / "run"
    for stage in ("encoder", "features", "pixels", "finetune", "latents"):
        shutil.copytree(finished / stage, workdir / stage)
    own = {"depth": 2, "middle": 1}
    words = [f"--config.generator.flow_matching.dit.{name}={value}" for name, value in own.items()]
    words += ["--config.generator.optimizer=muon", f"--config.sampling.guidance={INTERNAL}"]
    assert main(["train", "generator", "--config", str(TINY), "--workdir", str(workdir), *words]) == 0
    return workdir


@pytest.mark.slow
def test_internal_guidance_from_training_to_scores(trained: Path):
    rows = [json.loads(line) for line in (trained / "generator" / "metrics.jsonl").read_text().splitlines()]
    assert {"velocity_loss", "middle_loss"} <= {name.rpartition("/")[2] for name in rows[-1]}
    assert main(["sample", "--workdir", str(trained), "--number", "4"]) == 0
    settings = json.loads((trained / "samples" / "samples" / "settings.json").read_text())
    assert settings["function_evaluations"] == 5 and [0.0, 1.0, 1.4, "internal"] in settings["guidance"]
    fields = {"samples": 20, "weights": "(1.0, 2.0)", "highs": "(1.0,)", "kind": "internal", "emas": "(0.9,)"}
    words = [f"--config.evaluation.guidance.{name}={value}" for name, value in fields.items()]
    assert main(["evaluate", "--workdir", str(trained), "--task", "guidance", *words]) == 0
    result = json.loads((trained / "evaluation" / "guidance.json").read_text())
    assert [point["function_evaluations"] for point in result["points"].values()] == [4, 4]
    none, two = (point["value"] for point in result["points"].values())
    assert none != two and result["origin"]["kind"] == "internal"


@pytest.mark.slow
def test_autoguidance_by_another_directory(trained: Path, finished: Path, capsys: pytest.CaptureFixture[str]):
    guided = '((0.0, 1.0, 2.0, "auto"),)'
    words = ["sample", "--workdir", str(trained), "--number", "3", f"--config.sampling.guidance={guided}"]
    assert main(words) == 2 and "name the weaker network's directory in sampling.guide" in capsys.readouterr().err
    assert main([*words, f"--config.sampling.guide={finished}"]) == 0
    folder = trained / "samples" / "samples"
    settings = json.loads((folder / "settings.json").read_text())
    assert settings["function_evaluations"] == 8 and settings["guide"] == str(finished)
    weaker = fae_jax.load(finished)
    assert settings["weights"]["guide"] == weaker.hashes(("generator",))["generator"]
    ours = np.load(folder / "samples.npz")["arr_0"]
    assert main([*words[:-1], "--config.sampling.guidance=()"]) == 0
    assert np.abs(ours.astype(int) - np.load(folder / "samples.npz")["arr_0"]).max() > 0


@pytest.mark.slow
def test_a_guide_of_other_latents_or_of_another_condition_is_refused(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    record = read_record(Workdir(finished), "generator")
    statistics = {**record.facts["statistics"], "mean": [0.5] * 4}
    others = dataclasses.replace(record, facts={**record.facts, "statistics": statistics})
    for name, change, problem in (
        ("latents", None, "was trained on other latents: give both the same cache"),
        ("condition", {"condition": {"kind": "none"}}, "is told another condition than this generator"),
        ("kind", {"generator": {"kind": "mean_flow"}}, "has no velocity to compare with"),
    ):
        guide = tmp_path / name
        shutil.copytree(finished, guide)
        config = json.loads((guide / "config.json").read_text())
        (guide / "config.json").write_text(json.dumps(config | (change or {})))
        if change is None:
            write_record(Workdir(guide), "generator", others)
        words = ["sample", "--workdir", str(finished), "--name", "refused", f"--config.sampling.guide={guide}"]
        assert main([*words, '--config.sampling.guidance=((0.0, 1.0, 2.0, "auto"),)']) == 2
        err = capsys.readouterr().err
        assert f"field sampling.guide={guide}" in err and problem in err and len(err.splitlines()) == 1, err
    assert not (finished / "samples" / "refused").exists()


@pytest.mark.slow
def test_a_head_that_is_not_there_is_refused_before_training(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "generator")
    words = ["train", "generator", "--workdir", str(tmp_path / "run"), f"--config.sampling.guidance={INTERNAL}"]
    assert main(words) == 2
    err = capsys.readouterr().err
    assert "no head at a middle block" in err and len(err.splitlines()) == 1
    assert not (tmp_path / "run" / "generator").exists()
