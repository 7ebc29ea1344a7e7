"""The section of understanding: a row for what was measured, and none for what was not."""

import json
from pathlib import Path

from fae_jax.report.markup import render
from fae_jax.report.reading import Record
from fae_jax.report.scores import other_section
from fae_jax.report.understanding import understanding_section


def drawn(workdir: Path, page_of, **results: dict) -> str:
    (workdir / "evaluation").mkdir(exist_ok=True, parents=True)
    for name, result in results.items():
        (workdir / "evaluation" / f"{name}.json").write_text(json.dumps(result))
    return page_of(render(understanding_section(Record.read(workdir)))).text


def test_a_row_for_each_classifier_that_was_tried(tmp_path, page_of):
    probe = {
        "linear": {"x": 0.9, "reconstructed": 0.85, "z": 0.8, "inputs": {"class 4": 0.93}},
        "own_head": {"x": 0.87, "reconstructed": 0.861, "agreement": 0.95, "patches_only": {"x": 0.7}},
        "own_pooling": {"linear": {"x": 0.91, "reconstructed": 0.88}},
    }
    text = drawn(tmp_path, page_of, probe=probe)
    for words in (
        "linear probe 90.0 % 85.0 % 80.0 %",
        "encoder's own head 87.0 % 86.1 % –",
        "own head, patches only 70.0 % – –",
        "linear probe after own pooling 91.0 % 88.0 % –",
        "linear probe of class 4 93.0 % – –",
        "own head agrees 95.0 %",
    ):
        assert words in text, words
    assert "nearest neighbours" not in text


def test_recall_zero_shot_and_semantics_have_tables(tmp_path, page_of):
    recall = {"1": 0.5579, "5": 0.8, "10": 0.9}
    retrieval = {"images": 5000, "captions": 25014, "x": {"text_to_image": recall, "image_to_text": recall}}
    zero_shot = {"top_1": {"x": 0.8, "reconstructed": 0.79}, "top_5": {"x": 0.95}}
    scores = {"similarity_maps": 0.934, "matches": 0.5, "matches_within_one": 0.75}
    semantics = {"agreement_with_x": {"z": scores}}
    text = drawn(tmp_path, page_of, retrieval=retrieval, zero_shot=zero_shot, semantics=semantics)
    assert "images found for a caption, x 55.8 % 80.0 % 90.0 %" in text and "captions 25,014" in text
    assert "named by the text tower 80.0 % 79.0 %" in text and "among its first five 95.0 % –" in text
    assert "z 0.934 50.0 % 75.0 %" in text
    assert other_section(Record.read(tmp_path)) is None


def test_results_of_another_form_draw_nothing(tmp_path):
    (tmp_path / "evaluation").mkdir()
    for name in ("probe", "retrieval", "zero_shot", "semantics"):
        (tmp_path / "evaluation" / f"{name}.json").write_text('{"x": 3, "linear": [1], "agreement_with_x": "z"}')
    assert understanding_section(Record.read(tmp_path)) is None
