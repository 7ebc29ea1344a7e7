"""The sweep over guidance: its points are what written schedules give, of one program; the best is named."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import fae_jax
from fae_jax.cli.program import main
from fae_jax.data.pixels import to_uint8
from fae_jax.evaluation.metrics import Batch, results, take_in
from fae_jax.evaluation.metrics.frechet import Frechet
from fae_jax.evaluation.tasks.guidance import best_point, chart
from fae_jax.model import FAE


@pytest.mark.slow
def test_points_are_what_written_schedules_give_and_share_a_program(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    workdir, programs, sampling = tmp_path / "run", {}, FAE._sampling

    def counted(fae: FAE, settings: object) -> object:
        program = sampling(fae, settings)
        programs[id(program)] = program
        return program

    monkeypatch.setattr(FAE, "_sampling", counted)
    shutil.copytree(finished, workdir)
    fields = {"samples": 20, "weights": "(1.0, 6.0)", "highs": "(0.7, 1.0)"}
    words = [f"--config.evaluation.guidance.{name}={value}" for name, value in fields.items()]
    assert main(["evaluate", "--workdir", str(workdir), "--task", "guidance", *words]) == 0
    result = json.loads((workdir / "evaluation" / "guidance.json").read_text())
    assert [program._cache_size() for program in programs.values()] == [1]
    names = ["none", "6 up to 0.7", "6 up to 1"]
    assert list(result["points"]) == [f"{name}, EMA {ema}" for ema in (0.5, 0.9) for name in names]
    evaluations = [point["function_evaluations"] for point in result["points"].values()]
    assert evaluations == [4, 5, 8] * 2  # of 4 steps, the last alone begins at no more than 0.7
    assert result["best"]["value"] == min(point["value"] for point in result["points"].values())
    assert (workdir / "evaluation" / "figures" / "guidance.png").is_file()
    assert result["origin"]["checkpoints"]["0.5"] == {"checkpoint": 8, "ema": "0.5"}

    fae = fae_jax.load(workdir)
    labels = np.resize(np.arange(10), 20)
    images = to_uint8(fae.generate(labels, guidance=((0.0, 0.7, 6.0),), ema="0.5"))
    own = Frechet()
    own.update(Batch(images=images, labels=labels, look=lambda name: {"mean": _mean(fae, images)}))
    point = result["points"]["6 up to 0.7, EMA 0.5"]["frechet"]
    assert result["points"]["6 up to 0.7, EMA 0.5"]["value"] == point["samples_to_heldout"]
    theirs = results({"frechet": own}, {"reference": {"frechet": _heldout(fae, finished)}})[0]["frechet"]
    assert point["samples_to_heldout"] == pytest.approx(theirs["samples_to_reference"], rel=1e-3)


def _mean(fae: FAE, images: np.ndarray) -> np.ndarray:
    return np.asarray(fae.features(images.astype(np.float32) / 127.5 - 1)).mean((1, 2))


def _heldout(fae: FAE, finished: Path) -> Frechet:
    from fae_jax.stages.experiment import Experiment
    from fae_jax.workdir import Workdir

    source = Experiment(Workdir(finished).read_config(), Workdir(finished)).images.source("heldout")
    images = np.stack([source[place]["image"] for place in range(len(source))])
    batch = Batch(images=images, labels=np.zeros(len(images), int), look=lambda name: {"mean": _mean(fae, images)})
    taken = take_in([batch], ("frechet",), None, ())["frechet"]
    assert isinstance(taken, Frechet)
    return taken


def test_the_best_point_is_the_lowest_or_the_highest_as_the_score_is_meant():
    points = {
        f"{weight} up to {high}": {"ema": None, "weight": weight, "high": high, "value": weight * high}
        for weight in (1.0, 2.0)
        for high in (0.5, 1.0)
    }
    assert best_point(points, "fid/value") == ("1.0 up to 0.5", False)
    assert best_point(points, "inception_score/value") == ("2.0 up to 1.0", True)
    assert chart(points, "fid/value").width == 640
