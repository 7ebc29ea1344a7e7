"""`fae quickstart --captions` from its encoder to its page, at the smallest sizes."""

import json
from pathlib import Path

import pytest
from running import fae

SHORT = {
    **{f"{stage}.steps": 2 for stage in ("encoder_training", "features", "pixels", "finetune", "generator")},
    **{f"{stage}.warmup": 1 for stage in ("encoder_training", "features", "pixels", "finetune", "generator")},
    **{f"{stage}.batch": 8 for stage in ("encoder_training", "features", "pixels", "finetune", "generator")},
    "encoder.depth": 1,
    "feature_decoder.transformer.depth": 1,
    "pixel_decoder.depth": 1,
    "generator.flow_matching.mmdit.depth": 2,
    "sampling.steps": 2,
    "evaluation.samples": 80,
    "evaluation.generation.metrics": "('digit_pairs',)",
    "compute.scan": True,
}


@pytest.mark.slow(seconds=70)
def test_sentences_are_drawn_and_judged_and_it_goes_on_where_it_was(tmp_path: Path) -> None:
    words = ["quickstart", "--captions", "--out", tmp_path / "run"]
    words += [f"--config.{name}={value}" for name, value in SHORT.items()]
    scores = json.loads(fae(*words, "--json")[0].splitlines()[-1])["evaluation"]
    assert set(scores) == {"reconstruction", "generation"}
    guided = scores["generation"]["sets"]["guided"]
    assert guided["sentences"] == 44 and guided["judge"]["trusted"] and 0 <= guided["accuracy"] < 0.5
    assert guided["sampling"]["text"]["tower"] == "minilm_l6"
    page = (tmp_path / "run" / "report.html").read_text()
    assert "shuffled" in page and "a zero" in (tmp_path / "run/samples/guided/prompts.json").read_text()
    _, err = fae("quickstart", "--captions", "--data", tmp_path, code=2)
    assert len(err.splitlines()) == 1 and "leave one out" in err
