"""STARFlow and MeanFlow through the commands, beside the stages that flow matching's experiment left."""

import json
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running import TINY, assert_same_arrays, curve, fae, killed, lines, quickly, record, saved_state

import fae_jax
from fae_jax.cli.program import main
from fae_jax.data.pixels import to_uint8

SIZES = {"width": 16, "depth": 1, "heads": 2, "hidden": 32}
KINDS = {
    "starflow": {**SIZES, "shallow_blocks": 2, "shallow_depth": 1, "block": 4, "iterations": 2},
    "mean_flow": {"guidance": "asked", **{f"dit.{name}": value for name, value in SIZES.items()}},
}
# Of more than one player: MeanFlow's tokens are aligned, by a projector that trains beside it.
REPA = {"generator.repa.weight": 0.5, "generator.repa.depth": 1, "generator.repa.hidden": 16}
ALIGNED = {"mean_flow": REPA}
NAMED = {"generator.repa.encoder": "dinov2_s14"}
EVALUATIONS = {"starflow": 2 * (8 + 1) + 2 * 8 + 3, "mean_flow": 4}


def words(kind: str, **more: object) -> list[str]:
    fields = {f"generator.{kind}.{name}": value for name, value in KINDS[kind].items()}
    fields |= {"generator.kind": kind, "sampling.guidance": "((0.0, 1.0, 2.0),)", **ALIGNED.get(kind, {}), **more}
    return ["--config", str(TINY), *(f"--config.{name}={value}" for name, value in fields.items())]


def before_the_generator(finished: Path, workdir: Path) -> Path:
    """All stages before it, of an experiment with another generator."""
    shutil.copytree(finished, workdir, ignore=shutil.ignore_patterns("generator", "samples", "evaluation"))
    (workdir / "config.json").unlink()  # the experiment's, not that of the encoder's folder
    return workdir


def told(folder: Path) -> Any:
    return json.loads((folder / "settings.json").read_text())


STEPS = 120  # so many that ten kills are in time


def _kill_ten_times(train: tuple[object, ...], workdir: Path) -> None:
    """Each time as many steps further on as random numbers say, and a little later than that."""
    seed = time.time_ns() % 10**6
    rng, rows, landed = random.Random(seed), workdir / "generator" / "metrics.jsonl", []
    while len(landed) < 10:
        due = {"rows": rows, "least": lines(rows) + rng.randrange(1, 8), "delay": rng.uniform(0, 0.05)}
        ended = killed(*train, "--workdir", workdir, **due)
        landed.append(lines(rows))
        if ended != -signal.SIGKILL:  # it came too late, and those before it have left no trace
            assert ended == 0 and landed[-1] == STEPS, (ended, landed)
            shutil.rmtree(workdir / "generator")
            landed = []
    print(f"seed {seed}, killed at {landed}")


@pytest.mark.slow(seconds=130)
@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_trained_killed_resumed_drawn_scored_exported_and_compiled(
    kind: str, finished: Path, tmp_path: Path
):
    whole, other = (before_the_generator(finished, tmp_path / name) for name in ("whole", "killed"))
    train = ("train", "generator", *words(kind, **{"generator.steps": STEPS, "checkpoint.every": 8}))
    quickly(*train, "--workdir", whole)
    _kill_ten_times(train, other)
    quickly(*train, "--workdir", other)
    assert curve(other, "generator") == curve(whole, "generator")
    ours = saved_state(other, "generator")
    assert_same_arrays(ours, saved_state(whole, "generator"))
    assert any("['projector']['params']" in path for path in ours) == (kind in ALIGNED)

    quickly("sample", "--workdir", whole, "--number", 7)
    drawn, settings = whole / "samples" / "samples", told(whole / "samples" / "samples")
    assert settings["function_evaluations"] == EVALUATIONS[kind]
    assert "sampler" not in settings and ("steps" in settings) == (kind == "mean_flow")
    quickly("export", "--workdir", whole, "--out", tmp_path / "bundle")
    assert not any("projector" in path.name for path in (tmp_path / "bundle").rglob("*"))
    bundle = fae_jax.load(str(tmp_path / "bundle"))
    with np.load(drawn / "samples.npz") as kept:  # drawn in batches of five, and these in one of two
        difference = to_uint8(bundle.generate([0, 1])).astype(int) - kept["arr_0"][:2]
    assert np.abs(difference).max() <= 1
    quickly("evaluate", "--workdir", whole, "--task", "generation", "--config.evaluation.samples=10")
    sets = json.loads((whole / "evaluation" / "generation.json").read_text())["sets"]
    assert sets["guided"]["sampling"]["function_evaluations"] == EVALUATIONS[kind]
    out, _ = fae("compile", *words(kind), "--stage", "generator", "--stage", "sample")
    assert out.count("fits") == 2


@pytest.mark.slow
def test_tokens_are_aligned_with_what_a_named_encoder_reads_in_decoded_images(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    workdir = before_the_generator(finished, tmp_path / "run")
    fields = {**REPA, "generator.repa.encoder": "vit", "generator.repa.weights": workdir / "encoder"}
    fields |= {"generator.flow_matching.dit.patch": 2, "generator.steps": 3}
    train = ["train", "generator", "--config", str(TINY), "--workdir", str(workdir)]
    train += [f"--config.{name}={value}" for name, value in fields.items()]
    (workdir / "pixels").rename(tmp_path / "pixels")
    assert main(train) == 2 and "stage generator needs stage pixels" in capsys.readouterr().err
    (tmp_path / "pixels").rename(workdir / "pixels")
    assert main(train) == 0
    assert all(-1 <= json.loads(row)["alignment_loss"] <= 1 for row in curve(workdir, "generator"))
    assert {"text", "feature_decoder", "pixel_decoder", "alignment encoder"} & set(
        record(workdir, "generator").made_of
    ) == {"feature_decoder", "pixel_decoder", "alignment encoder"}
    assert main(["sample", "--workdir", str(workdir), "--number", "2"]) == 0


@pytest.mark.slow
def test_evaluations_are_those_made_where_steps_are_chosen_on_the_way(finished: Path, tmp_path: Path):
    workdir = tmp_path / "run"
    shutil.copytree(finished, workdir, ignore=shutil.ignore_patterns("samples", "evaluation"))
    loose = ["--workdir", str(workdir), "--config.sampling.sampler=dopri5", "--config.sampling.rtol=0.01"]
    assert main(["sample", *loose, "--number", "7", "--guidance", "none"]) == 0
    settings = told(workdir / "samples" / "samples")
    count = settings["function_evaluations"]
    assert settings["rtol"] == 0.01 and count > 7 and 7 * (count - 1) / 6 == pytest.approx(round(7 * (count - 1) / 6))
    own = ["--config.evaluation.samples=10", "--config.evaluation.generation.unguided_sampler="]
    assert main(["evaluate", *loose, "--task", "generation", *own]) == 0
    result = json.loads((workdir / "evaluation" / "generation.json").read_text())
    made = {name: each["sampling"]["function_evaluations"] for name, each in result["sets"].items()}
    assert 7 < made["unguided"] < made["guided"], made
    assert result["origin"]["sets"]["guided"]["function_evaluations"] is None
    assert main(["compile", *loose, "--stage", "sample"]) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "fields", "problem"),
    [
        ("mean_flow", {"sampling.steps": 0}, "field sampling.steps must be at least 1, got 0"),
        (
            "mean_flow",
            {"sampling.guidance": "((0.9, 1.0, 0.9), (0.0, 0.7, 2.5))"},
            "field sampling.guidance must be one",
        ),
        ("mean_flow", {"generator.mean_flow.mix": 1.0}, "field generator.mean_flow.mix=1.0 must be below 1"),
        ("mean_flow", {"generator.repa.depth": 2}, "field generator.repa.depth=2 is beyond the last block, depth=1"),
        ("mean_flow", {"generator.repa.weight": -1.0}, "field generator.repa.weight must be at least 0, got -1.0"),
        (
            "mean_flow",
            {"generator.repa.encoder": "dinov2"},
            "field generator.repa.encoder=dinov2: encoder 'dinov2' is",
        ),
        ("mean_flow", {**NAMED, "generator.repa.weights": "/nowhere"}, "weights '/nowhere' are not a file, a folder"),
        ("starflow", REPA, "field generator.repa.weight=0.5 aligns tokens between the blocks of a network"),
        ("starflow", {"condition.kind": "none"}, "field sampling.guidance guides towards a condition"),
        ("starflow", {"generator.starflow.block": 3}, "field generator.starflow.block=3 must divide the 16 tokens"),
        ("starflow", {"generator.starflow.iterations": 5}, "field generator.starflow.iterations=5 are more than"),
    ],
)
def test_what_cannot_work_is_refused_before_training(
    kind: str, fields: dict, problem: str, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    workdir = before_the_generator(finished, tmp_path / "run")
    assert main(["train", "generator", *words(kind, **fields), "--workdir", str(workdir)]) == 2
    err = capsys.readouterr().err
    assert problem in err and len(err.splitlines()) == 1 and not (workdir / "generator").exists()
