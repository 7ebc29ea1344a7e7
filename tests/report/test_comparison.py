"""Several runs on one page: what differs, every score in its row, and no difference where there is none."""

import json
import shutil

import pytest
from page_reader import Page

from fae_jax.report.comparison import write_comparison


@pytest.fixture
def two(finished, tmp_path):
    other = tmp_path / "wider"
    shutil.copytree(finished, other)
    config = json.loads((other / "config.json").read_text())
    config["name"] = "<wider>"
    (other / "config.json").write_text(json.dumps(config))
    results = json.loads((other / "evaluation/generation.json").read_text())
    results["sets"]["guided"]["accuracy"] = 0.123
    results["sets"]["guided"]["sampling"]["steps"] = 77
    (other / "evaluation/generation.json").write_text(json.dumps(results))
    return finished, other


def test_fields_origins_and_scores_stand_side_by_side(two):
    page = Page(write_comparison(two).read_text())
    words = {name: page.of(name) for name in page.sections}
    assert words["fields"].count("<wider>") == 1 and "data." not in words["fields"]
    generation = next(text for text in words.values() if text.startswith("Generation"))
    origins, scores = generation.split("score", 1)
    assert "sets · guided · sampling · steps" in origins and "77" in origins and "accuracy" not in origins
    accuracies = scores.split("sets · guided · accuracy", 1)[1].split()
    assert accuracies[1] == "0.123" and accuracies[0] != accuracies[1]
    assert "sampling" not in scores
    assert page.sections["samples"][1] and "loss at step" in words["training"]


def test_equal_runs_differ_in_nothing(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "again")
    page = write_comparison([finished, tmp_path / "again"]).read_text()
    assert "the configurations are equal" in page and "origin differs in" not in page


def test_a_run_beside_itself_is_refused(finished):
    with pytest.raises(ValueError, match="is given twice"):
        write_comparison([finished, finished / ".." / finished.name])
