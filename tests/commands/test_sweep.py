"""`fae sweep`: what is refused untouched, what is shared, who is stopped early, and that points are experiments."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from running import TINY, curve, fae, tree_hash

from fae_jax.cli.program import main
from fae_jax.sweeps.directory import SweepDirectory

SWEEP = """\
from fae_jax.sweeps import Halving, Sweep, grid, listed

def get_sweep():
    return Sweep(%s)
"""
RATES = 'points=grid({"generator.learning_rate": (1e-4, 1e-2)}), stages=("generator",), metric="generator.loss"'
Refuse = Callable[..., str]


def write(folder: Path, declared: str, name: str = "s.py") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(SWEEP % declared)
    return folder / name


@pytest.fixture
def refuse(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Refuse:
    """Runs a `fae sweep` that must be refused beside a folder that must not change; returns its one line."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> str:
        before = tree_hash(tmp_path)
        capfd.readouterr()
        assert main(["sweep", *map(str, words)]) == 2
        out, err = capfd.readouterr()
        assert out == "" and err.count("\n") == 1 and err.startswith("fae: error: "), err
        assert tree_hash(tmp_path) == before
        return err

    return run


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ("points=(), metric='features.loss'", "the sweep is empty"),
        ("points=grid({'features.betta': (1.0,)}), metric='features.loss'", "did you mean 'features.beta'?"),
        ("points=grid({'features.steps': ('many',)}), metric='features.loss'", "is of type int"),
        ("points=grid({'features.beta': ()}), metric='features.loss'", "needs a sequence of values"),
        ("points=grid({'seed': (0, 1)}), metric='fetures.loss'", "metric 'fetures.loss' must be STAGE.NAME"),
    ],
)
def test_declarations_that_cannot_run(refuse: Refuse, tmp_path: Path, declared: str, said: str):
    assert said in refuse("--config", TINY, "--sweep", write(tmp_path, declared), "--workdir", "s")


def test_words_that_say_too_little_or_name_nothing(refuse: Refuse, tmp_path: Path):
    file = write(tmp_path, RATES)
    assert "a new sweep needs both --config and --sweep" in refuse("--config", TINY)
    assert "a new sweep needs both --config and --sweep" in refuse("--launcher", "local")
    assert "is not a sweep directory" in refuse("--workdir", "nowhere", "--table")
    assert "no sweep at 'bet'; give a Python file, or one of: beta," in refuse("--config", TINY, "--sweep", "bet")
    assert "launcher 'slrum' is unknown; did you mean 'slurm'?" in refuse("--workdir", "s", "--launcher", "slrum")
    begin = ("--config", TINY, "--sweep", file, "--workdir", "s")
    assert "launcher local has no setting 'paralel'" in refuse(*begin, "--launch", "paralel=2")
    assert "must be numbers and ranges" in refuse(*begin, "--points", "first")
    assert "field generator.step does not exist" in refuse(*begin, "--config.generator.step=3")


@pytest.mark.parametrize(
    ("words", "program"),
    [
        (("slurm",), "sbatch"),
        (("tpu", "--launch", "zone=z", "--launch", "type=t", "--launch", "version=v"), "gcloud"),
        (("gke", "--launch", "image=i", "--launch", "accelerator=a", "--launch", "topology=2x2"), "kubectl"),
        (("gke", "--launch", "image=i", "--launch", "via=xpk", "--launch", "cluster=c", "--launch", "type=t"), "xpk"),
    ],
)
def test_launchers_without_their_program(
    refuse: Refuse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], program: str
):
    monkeypatch.setenv("PATH", "/nowhere")
    line = refuse("--config", TINY, "--sweep", write(tmp_path, RATES), "--workdir", "s", "--launcher", *words)
    assert f"launcher {words[0]} needs the program `{program}`" in line


def test_a_dry_run_touches_nothing_and_prints_every_command(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    file = write(tmp_path, RATES + ", stop=Halving(steps=(2, 4))")
    before = tree_hash(tmp_path)
    assert (
        main(["sweep", "--config", str(TINY), "--sweep", str(file), "--workdir", str(tmp_path / "s"), "--dry_run"])
        == 0
    )
    out, _ = capfd.readouterr()
    assert tree_hash(tmp_path) == before
    assert "trained once for all: encoder, features, cache" in out
    commands = [line.partition(" --point ")[2] for line in out.splitlines() if " --point " in line]
    assert commands == ["shared", *(f"{n}{rung}" for rung in (" --rung 1", " --rung 2", "") for n in (0, 1))]


def test_a_dry_run_can_be_given_to_a_shell(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    """Nothing in a name is run: what is printed does nothing but begin programs, and there are none."""
    file, root = write(tmp_path, RATES), tmp_path / f"a;$(touch {tmp_path}/x)\ntouch {tmp_path}/y"
    before = tree_hash(tmp_path)
    for words in (["local"], ["gke", "--launch=image=i", "--launch=accelerator=a", "--launch=topology=4x4"]):
        given = ["--config", str(TINY), "--sweep", str(file), "--workdir", str(root), "--dry_run"]
        assert main(["sweep", *given, "--launcher", *words]) == 0
        printed = capfd.readouterr().out.replace(sys.executable, "none")
        subprocess.run(["/bin/bash"], input=printed, text=True, env={"PATH": "/usr/bin:/bin"}, capture_output=True)
        assert tree_hash(tmp_path) == before


def test_sweeps_in_folders_of_one_name_have_jobs_of_their_own(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    names, gke = [], ["--launch=image=i", "--launch=accelerator=a", "--launch=topology=4x4", "--launcher=gke"]
    for parent in ("a", "b", "a"):
        given = ["--config", str(TINY), "--sweep", str(write(tmp_path, RATES)), f"--workdir={tmp_path}/{parent}/s"]
        assert main(["sweep", *given, *gke, "--dry_run"]) == 0
        names.append(re.findall(r"name: (s-\S+-shared)", capfd.readouterr().out))
    assert names[0] == names[2] != names[1] and len(names[0]) == 1


@pytest.fixture(scope="module")
def swept(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep from a finished experiment: two learning rates of the generator, one stopped at step 4."""
    folder = tmp_path_factory.mktemp("swept")
    file = write(folder, RATES + ", stop=Halving(steps=(4,))")
    words = ("--config", TINY, "--sweep", file, "--workdir", folder / "s", "--launch", "parallel=2", "--json")
    out, _ = fae("sweep", *words, "--from", finished)
    assert json.loads(out.splitlines()[-1])["best"].startswith("learning_rate=0.01-")
    return folder / "s"


@pytest.mark.slow
def test_the_autoencoder_is_not_trained_again(swept: Path, finished: Path):
    for point in SweepDirectory.open(swept).points:
        for name in ("features/metrics.jsonl", "encoder/model.safetensors"):
            assert (point.workdir.root / name).stat().st_ino == (finished / name).stat().st_ino
        assert point.workdir.read_config().generator.learning_rate == point.values["generator.learning_rate"]


@pytest.mark.slow
def test_the_one_behind_is_stopped_at_the_step_and_the_other_is_the_run_it_would_be_alone(
    swept: Path, finished: Path
):
    behind, winner = SweepDirectory.open(swept).points
    told = json.loads((behind.workdir.root / "outcome.json").read_text())
    assert told["outcome"] == "behind" and told["step"] == 4 and told["value"] > told["needed"]
    assert curve(behind.workdir.root, "generator")[-1].startswith('{"step": 4,')
    # The winner has the configuration's own rate, and was paused at step 4 on its way.
    assert curve(winner.workdir.root, "generator") == curve(finished, "generator")
    rows = {row["number"]: row for row in json.loads((swept / "table.json").read_text())["points"]}
    assert rows[0]["state"] == "behind at step 4" and rows[1]["state"] == "done" and rows[1]["place"] == 1
    assert list((swept / "plots").glob("generator.loss_over_*.svg"))


@pytest.mark.slow
def test_done_is_done_and_what_is_missing_goes_on(swept: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    root = tmp_path / "again"
    shutil.copytree(swept, root)
    assert main(["sweep", "--workdir", str(root), "--dry_run"]) == 0
    assert "# nothing is left to run" in capfd.readouterr().out
    points = SweepDirectory.open(root).points
    (points[1].workdir.root / "outcome.json").unlink()
    assert main(["sweep", "--workdir", str(root), "--dry_run"]) == 0
    assert "--point 1" in (out := capfd.readouterr().out) and "--point 0" not in out
    assert main(["sweep", "--workdir", str(root), "--point", "1"]) == 0  # every stage is done: nothing is trained
    assert json.loads((points[1].workdir.root / "outcome.json").read_text()) == {"outcome": "done"}


@pytest.mark.slow
def test_directories_metrics_and_sources_that_are_not_this_sweeps(
    swept: Path, finished: Path, tmp_path: Path, refuse: Refuse
):
    shutil.copytree(swept, tmp_path / "s")
    other = write(tmp_path, RATES.replace("1e-4", "1e-3"), "other.py")
    same = write(tmp_path, RATES + ", stop=Halving(steps=(4,))", "same.py")
    line = refuse("--config", TINY, "--sweep", other, "--workdir", "s")
    assert "is of another sweep (new point learning_rate=0.001-" in line
    line = refuse("--config", TINY, "--sweep", same, "--workdir", "s", "--config.features.beta=1.0")
    assert "is of another sweep (features.beta: 0.0005 → 1.0)" in line
    assert "did you mean 'generator.loss'?" in refuse("--workdir", "s", "--table", "--metric", "generator.los")
    assert "is the working directory of an experiment" in refuse(
        *("--config", TINY, "--sweep", other, "--workdir", finished)
    )
    fresh = ("--config", TINY, "--sweep", other, "--workdir", "new", "--from", finished)
    line = refuse(*fresh, "--config.features.beta=1.0")
    assert "stage features of" in line and "is of another experiment (features.beta: 0.0005 → 1.0)" in line
    seeds = write(tmp_path, "points=grid({'seed': (1, 2)}), metric='features.loss'", "seeds.py")
    line = refuse("--config", TINY, "--sweep", seeds, "--workdir", "new", "--from", finished)
    assert "has finished none of the stages that the points share (none)" in line
    assert "is not in" in refuse("--workdir", "s", "--point", "9")
    assert "must be between 1 and 1" in refuse(
        "--workdir", _without_outcome(tmp_path / "s"), "--point", "1", "--rung", "2"
    )


def _without_outcome(root: Path) -> Path:
    (SweepDirectory.open(root).points[1].workdir.root / "outcome.json").unlink()
    return root


@pytest.mark.slow
def test_a_sweep_over_guidance_trains_nothing(finished: Path, tmp_path: Path):
    weights = "[((0.0, 0.7, weight),) for weight in (1.0, 3.0)]"
    metric = '"generation.sets.guided.frechet.samples_to_heldout"'
    file = write(tmp_path, f'points=grid({{"sampling.guidance": {weights}}}), tasks=("generation",), metric={metric}')
    fae("sweep", "--config", TINY, "--sweep", file, "--workdir", tmp_path / "s", "--from", finished)
    scores = []
    for point in SweepDirectory.open(tmp_path / "s").points:
        result = json.loads((point.workdir.evaluation / "generation.json").read_text())
        assert result["sets"]["guided"]["sampling"]["guidance"] == [list(point.values["sampling.guidance"][0])]
        assert (point.workdir.root / "generator" / "metrics.jsonl").stat().st_nlink > 1
        scores.append(result["sets"]["guided"]["frechet"]["samples_to_heldout"])
    assert scores[0] != scores[1]
    (plot,) = (tmp_path / "s" / "plots").glob("*guidance.svg")
    assert plot.read_text().count("<circle") == 2
