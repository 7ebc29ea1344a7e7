"""The section of understanding: a row for what was measured, and none for what was not."""

import json
from pathlib import Path

from PIL import Image

from fae_jax.stages.figures import write_figure


def write(workdir: Path, **results: dict) -> Path:
    (workdir / "evaluation").mkdir(exist_ok=True, parents=True)
    for name, result in results.items():
        (workdir / "evaluation" / f"{name}.json").write_text(json.dumps(result))
    return workdir


def test_a_row_for_each_classifier_that_was_tried(tmp_path, draw):
    inputs = {"class 1": 0.92, "class 4 + mean patch": 0.93}
    probe = {
        "linear": {"x": 0.9, "reconstructed": 0.85, "z": 0.8, "inputs": inputs},
        "own_head": {"x": 0.87, "reconstructed": 0.861, "agreement": 0.95, "patches_only": {"x": 0.7}},
        "own_pooling": {"linear": {"x": 0.91, "reconstructed": 0.88}},
    }
    text = draw(write(tmp_path, probe=probe)).of("understanding")
    for words in (
        "linear probe 90.0 % 85.0 % 80.0 %",
        "encoder's own head 87.0 % 86.1 % –",
        "own head, patches only 70.0 % – –",
        "linear probe after own pooling 91.0 % 88.0 % –",
        "linear probe of the class token 92.0 % – –",
        "linear probe of the class tokens of the last 4 blocks + mean patch 93.0 % – –",
        "own head agrees 95.0 %",
    ):
        assert words in text, words
    assert "nearest neighbours" not in text


def test_recall_zero_shot_and_semantics_have_tables(tmp_path, draw):
    recall = {"1": 0.5579, "5": 0.8, "10": 0.9}
    retrieval = {"images": 5000, "captions": 25014, "x": {"text_to_image": recall, "image_to_text": recall}}
    zero_shot = {"top_1": {"x": 0.8, "reconstructed": 0.79}, "top_5": {"x": 0.95}}
    scores = {"similarity_maps": 0.934, "matches": 0.5, "matches_within_one": 0.75}
    semantics = {"agreement_with_x": {"z": scores}}
    page = draw(write(tmp_path, retrieval=retrieval, zero_shot=zero_shot, semantics=semantics))
    text = page.of("understanding")
    assert "images retrieved for a caption, x 55.8 % 80.0 % 90.0 %" in text and "captions 25,014" in text
    assert "named by the text tower 80.0 % 79.0 %" in text and "among its first five 95.0 % –" in text
    assert "z 0.934 50.0 % 75.0 %" in text
    assert "more" not in page.ids()


def test_several_reconstructions_have_a_row_each(finished, draw, rewrite):
    def change(result):
        result["sets"]["heldout_before_finetune"] = {"count": 30, "psnr": 19.5, "ssim": 0.8}

    rewrite(finished / "evaluation" / "reconstruction.json", change)
    text = draw(finished).of("understanding")
    assert "unseen 22.1 dB 18.0 dB 0.850 30" in text
    assert "heldout before finetune 19.5 dB – 0.800 30" in text


def test_results_of_another_form_draw_nothing_and_a_figure_alone_is_drawn(tmp_path, draw):
    broken = {"x": 3, "linear": [1], "agreement_with_x": "z"}
    write(tmp_path, **dict.fromkeys(("probe", "retrieval", "zero_shot", "semantics"), broken))
    assert "understanding" not in draw(tmp_path).ids()
    write_figure(tmp_path, "features", Image.new("RGB", (9, 9)), "in the same colours")
    text = draw(tmp_path).of("understanding")
    assert "in the same colours" in text and "linear probe" not in text
