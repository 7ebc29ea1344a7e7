"""A generator that is scored while it trains is bitwise the one that is not, and one program scores every step."""

import json
import shutil
from pathlib import Path

import pytest
from running import assert_same_arrays, curve, saved_state

from fae_jax.cli.program import main
from fae_jax.config import override
from fae_jax.evaluation.during import scorer
from fae_jax.model import FAE
from fae_jax.stages.experiment import Experiment
from fae_jax.workdir import Workdir

SCORED = ("every=3", "samples=20", "steps=4")


@pytest.mark.slow
def test_scores_change_neither_curve_nor_state(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    workdir, programs, sampling = tmp_path / "run", [], FAE._sampling
    shutil.copytree(finished, workdir, ignore=shutil.ignore_patterns("generator"))

    def counted(fae: FAE, settings: object) -> object:
        program = sampling(fae, settings)
        programs.append(program)
        return program

    monkeypatch.setattr(FAE, "_sampling", counted)
    fields = [f"--config.evaluation.during.{field}" for field in SCORED]
    train = ["train", "generator", "--workdir", str(workdir), *fields]
    assert main([*train, "--config.checkpoint.pause_at=4"]) == 1  # paused
    assert main(train) == 0
    rows = [json.loads(row) for row in curve(workdir, "generator")]
    name = "scores/frechet/samples_to_reference"
    assert [row["step"] for row in rows if name in row] == [3, 6, 8]
    assert len({row[name] for row in rows if name in row}) == 3
    plain = [json.loads(row) for row in curve(finished, "generator")]
    assert [{key: value for key, value in row.items() if key != name} for row in rows] == plain
    assert_same_arrays(saved_state(workdir, "generator"), saved_state(finished, "generator"))
    distinct = {id(program): program for program in programs}  # of the run to the pause, and of the one after it
    assert len(programs) == 3 and [program._cache_size() for program in distinct.values()] == [1, 1]


def test_what_cannot_be_scored_meanwhile_is_refused(finished: Path):
    config = Workdir(finished).read_config()

    def experiment(*fields: tuple[str, str]) -> Experiment:
        return Experiment(override(config, list(fields)), Workdir(finished))

    assert scorer(experiment()) is None
    with pytest.raises(ValueError, match="during.metrics=.*'nearest' out"):
        experiment(("evaluation.during.metrics", "('frechet', 'nearest')"))
