"""A model's samples as they are scored with it, and the files it leaves as anybody scores them: the same numbers."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fae_jax.cli.program import main
from fae_jax.extractors import EXTRACTORS

CHOSEN = ("fid", "sfid", "inception_score", "precision_recall")


@pytest.mark.slow
def test_a_models_scores_are_those_of_its_files(
    finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def evaluate(*words: Any) -> Any:
        capfd.readouterr()
        assert main(["evaluate", *map(str, words), "--json"]) == 0, capfd.readouterr().err
        return json.loads(capfd.readouterr().out.splitlines()[-1])

    monkeypatch.setitem(EXTRACTORS, "inception", "pixel_extractor:build")
    workdir, reference = tmp_path / "run", tmp_path / "real.npz"
    shutil.copytree(finished, workdir)
    evaluate("--make_reference", reference, "--samples", "digits:", "--image_size", 32, "--metrics", *CHOSEN)
    own = f"--config.evaluation.generation.metrics={CHOSEN}"
    apart = f"--config.evaluation.generation.reference={reference}"
    task = ("--workdir", workdir, "--task", "generation", "--config.evaluation.samples=40", own)
    ours = evaluate(*task, apart)
    for name in ("unguided", "guided"):
        samples = workdir / "samples" / name / "samples.npz"
        theirs = evaluate("--samples", samples, "--reference", reference, "--metrics", *CHOSEN)
        assert {key: ours["sets"][name][key] for key in theirs["scores"]} == theirs["scores"]
        assert theirs["scores"]["fid"]["reference"] == 1797
        assert ours["origin"]["reference"]["sha256"] == theirs["reference"]["sha256"]
    before = ours["origin"]["digest"]
    trained_on = evaluate(*task)["sets"]["guided"]["fid"]  # without a reference: the training images
    assert trained_on["against"] == "train" and trained_on["reference"] == 359
    kept = json.loads((workdir / "evaluation" / f"generation-{before}.json").read_text())
    assert kept["sets"] == json.loads(json.dumps(ours["sets"]))

    fields = "--config.evaluation.reconstruction.metrics=('fidelity', 'fid')"
    rebuilt = evaluate("--workdir", workdir, "--task", "reconstruction", fields)
    fid, count = (rebuilt["sets"]["heldout"][key] for key in ("fid", "count"))
    assert fid["samples"] == fid["reference"] == count == 1438 and np.isfinite(fid["value"]) and fid["value"] > 1
    assert rebuilt["origin"]["evaluators"]["inception"]["variant"] == "means of blocks"
