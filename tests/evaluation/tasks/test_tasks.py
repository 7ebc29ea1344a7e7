"""`fae evaluate` on a working directory that ended after its features stage: nothing else is asked for."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

import fae_jax
from fae_jax.cli.program import main
from fae_jax.stages.experiment import Experiment
from fae_jax.workdir import Workdir

KEPT = ("config.json", "encoder", "features")


@pytest.fixture(scope="module")
def features_only(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("features") / "only"
    workdir.mkdir()
    for name in KEPT:
        copy = shutil.copytree if (finished / name).is_dir() else shutil.copy
        copy(finished / name, workdir / name)
    return workdir


def evaluate(workdir: Path, *words: str, code: int = 0) -> None:
    assert main(["evaluate", "--workdir", str(workdir), *words]) == code


def result(workdir: Path, task: str) -> dict:
    return json.loads((workdir / "evaluation" / f"{task}.json").read_text())


def test_a_probe_needs_the_features_stage_alone_and_says_what_it_probed(features_only: Path):
    evaluate(features_only, "--task", "probe", "semantics", "--config.evaluation.probe.limit=60")
    found, fae = result(features_only, "probe"), fae_jax.load(features_only)
    assert found["encoder"] == {"name": "vit", "weights": fae.encoder.weights_hash}
    assert found["train"] == found["heldout"] == 60 and found["schema"] == 2
    assert set(found["linear"]["inputs"]) == {"class 1", "class 1 + mean patch"}
    assert set(found["own_head"]) >= {"x", "reconstructed", "agreement", "patches_only"}
    # the agreement of x and x̂, recomputed without the evaluation's own walk
    source = Experiment(Workdir(features_only).read_config(), Workdir(features_only)).images.source("heldout")
    images = np.stack([source[place]["image"] for place in range(60)]).astype(np.float32) / 127.5 - 1
    x = np.asarray(fae.features(images), np.float64)
    y = np.asarray(fae.reconstruct_features(fae.encode(images)), np.float64)
    cosine = ((x * y).sum(-1) / np.linalg.norm(x, axis=-1) / np.linalg.norm(y, axis=-1)).mean()
    assert found["cosine"] == pytest.approx(cosine, abs=1e-4)
    assert (features_only / "evaluation" / "figures" / "features.png").is_file()
    alike = result(features_only, "semantics")
    assert len(alike["images"]) == 8 and set(alike["agreement_with_x"]) == {"reconstructed", "z"}
    assert {path.stem for path in (features_only / "evaluation" / "figures").iterdir()} >= {"similarity", "matching"}
    page = (features_only / "report.html").read_text()
    assert "own head" in page and "linear probe" in page and "similarity maps" in page


def test_compress_is_encode_without_the_encoder(features_only: Path):
    fae = fae_jax.load(features_only)
    images = np.random.default_rng(0).uniform(-1, 1, (2, 32, 32, 3)).astype(np.float32)
    np.testing.assert_allclose(fae.compress(fae.features(images)), fae.encode(images), atol=1e-5)


def test_what_a_later_stage_trains_is_asked_for_when_it_is_used(features_only: Path):
    fae = fae_jax.load(features_only)
    latents = np.zeros((1, 4, 4, 4), np.float32)
    with pytest.raises(ValueError, match="has no finished stage pixels, .* run `fae train pixels"):
        fae.decode(latents)
    with pytest.raises(ValueError, match="has no generator: run `fae train generator"):
        fae.generate([0])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--task", "reconstruction"), "task reconstruction needs stage pixels"),
        (("--task", "probe", "reconstruction"), "task reconstruction needs stage pixels"),
        (("--task", "probe", "--config.evaluation.probe.head_classes=(1,2)"), "names 2 classes, the data has 10"),
        (("--task", "retrieval"), "have no captions; name captioned ones in evaluation.retrieval.source"),
        (
            ("--task", "retrieval", "--config.evaluation.retrieval.source=coco"),
            "a source of kind 'coco' needs a path",
        ),
        (("--task", "zero_shot"), "the encoder 'vit' pools no vector that texts could be compared with"),
        (
            ("--task", "zero_shot", "--config.evaluation.zero_shot.templates=('photo',)"),
            "texts with {} for the class",
        ),
        (
            ("--task", "semantics", "--config.evaluation.semantics.images=1"),
            "evaluation.semantics.images must be at least 2, got 1",
        ),
        (("--task", "probe", "--config.evaluation.probe.linear=svm"), "must be one of sgd, logistic, got 'svm'"),
        (("--task", "probe", "--config.evaluation.probe.neighbours=(0,)"), "whole numbers of at least 1, got (0,)"),
    ],
)
def test_refusals(features_only: Path, capfd: pytest.CaptureFixture[str], words: tuple[str, ...], said: str):
    evaluate(features_only, *words, code=2)
    err = capfd.readouterr().err
    assert said in err and err.count("\n") == 1


def test_captions_are_read_from_the_column_that_is_named(
    features_only: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    columns = {"image": [{"bytes": file.getvalue(), "path": "a.png"}], "short": ["red"], "long": ["a red bird"]}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    field = "--config.evaluation.retrieval"
    words = ("--task", "retrieval", f"{field}.source=parquet", f"{field}.path={tmp_path}")
    for name, told in (("wide", "'wide'"), ("long", "pools no vector that texts could be compared with")):
        evaluate(features_only, *words, f"{field}.columns.caption={name}", code=2)
        assert told in capfd.readouterr().err
