"""Samples, what they are near to, results without a section of their own, times, and the drawing of the pipeline."""

import json

import numpy as np
from PIL import Image

from fae_jax.report.page import PHASES
from fae_jax.report.pipeline import SHORTEST, TALLEST
from fae_jax.report.scores import MOST_ROWS
from fae_jax.stages.figures import write_figure


def test_unguided_samples_come_before_guided_ones(finished, draw):
    (finished / "samples" / "another").mkdir()
    text = draw(finished).of("samples")
    assert text.index("Unguided") < text.index("Guided") < text.index("Another")
    assert "recognised 70.0 % Fréchet distance 0.810" in text and "guidance none" in text


def test_a_grid_is_lettered_where_the_images_are_at_hand_and_taken_as_it_is_where_not(finished, draw):
    def widths():
        return [int(image["width"]) for image in draw(finished).all("img", "samples")]

    drawn = widths()
    assert len(drawn) == 2 and min(drawn) > 10 * 64
    archive = finished / "samples" / "guided" / "samples.npz"
    np.savez(archive, images=np.zeros((2, 8, 8, 3), np.uint8), labels=np.array([0, 7]))  # a class without a name
    assert widths() == [drawn[0], 8]
    archive.unlink()
    assert widths() == [drawn[0], 8]
    (finished / "samples" / "guided" / "grid.png").unlink()
    assert widths() == [drawn[0]]


def test_each_class_has_a_bar_for_each_set(finished, draw, rewrite):
    def change(result):
        result["sets"]["guided"]["accuracy_per_class"]["bee"] = 0.625
        result["sets"]["unguided"]["accuracy_per_class"]["bee"] = None

    rewrite(finished / "evaluation" / "generation.json", change)
    page = draw(finished)
    bars = [i["style"] for i in page.all("i", "samples") if i.get("style")]
    assert len(bars) == 2 * 4 - 1 and "width:62.5%" in bars
    assert "bee 62.5 % cat" in page.of("samples")


def test_among_very_many_classes_the_weakest_are_shown(finished, draw, rewrite):
    def change(result):
        for scores in result["sets"].values():
            scores["accuracy_per_class"] = {f"class {n}": (n * 37 % 1000) / 1000 for n in range(1000)}

    rewrite(finished / "evaluation" / "generation.json", change)
    text = draw(finished).of("samples")
    assert "The 24 classes recognised least" in text
    assert "class 0 0.0 %" in text and "class 973 0.1 %" in text and "class 1 3.7 %" not in text


def test_novelty_puts_samples_beside_honest_images(finished, draw):
    text = draw(finished).of("novelty")
    assert "guided samples 0.200 0.970 2.5 % (1) 0" in text
    assert "unseen real images 0.150 0.930 1.0 % –" in text
    assert "the caption of nearest" in text


def test_sections_without_results_are_left_out(tmp_path, draw):
    assert not {"novelty", "understanding", "more", "time"} & set(draw(tmp_path).ids())
    write_figure(tmp_path, "nearest", Image.new("RGB", (9, 9)), "side by side")
    text = draw(tmp_path).of("novelty")
    assert "side by side" in text and "median distance" not in text


def test_an_unknown_task_is_drawn_with_its_numbers_and_its_figures(finished, draw):
    folder = finished / "evaluation"
    result = {"recall": {"at_1": 0.5579}, "pairs": list(range(100)), "best": "SigLIP2"}
    (folder / "depth.json").write_text(json.dumps(result))
    (folder / "depth_maps.json").write_text(json.dumps({f"row {n}": n for n in range(MOST_ROWS + 2)}))
    for name in ("depth_error", "depth_maps_far", "depth_maps_near", "elsewhere"):
        write_figure(finished, name, Image.new("RGB", (9, 9)), f"caption of {name}")
    page = draw(finished)
    text = page.of("more")
    first, second = text.index("Depth depth value"), text.index("Depth maps depth maps value")
    for words in ("recall · at 1 0.558", "pairs 100 values", "best SigLIP2", "caption of depth_error"):
        assert first < text.index(words) < second, words
    assert f"row {MOST_ROWS - 1} {MOST_ROWS - 1} 2 more in evaluation/depth_maps.json" in text
    far, near = text.index("caption of depth_maps_far"), text.index("caption of depth_maps_near")
    assert second < far < near < text.index("Elsewhere caption of elsewhere")
    assert text.count("caption of") == 4 == len(page.all("img", "more"))


def test_times_are_in_order_and_as_long_as_they_took(finished, draw, rewrite):
    rewrite(finished / "timings.json", lambda times: times.update({"extra": 50.0}))
    page = draw(finished)
    places = [page.of("time").index(name) for name in (*PHASES, "extra")]
    assert places == sorted(places)
    widths = [i["style"] for i in page.all("i", "time")]
    assert widths[0] == "width:100.0%" and "width:20.0%" in widths
    assert "together, without install 2 min 50 s" in page.of("time")


def test_blocks_are_as_tall_as_the_root_of_their_numbers(tmp_path, draw):
    sizes = {"image": [32, 32, 3], "features": [4, 4, 48], "latent": [4, 4, 12], "parameters": {"compressor": 1e5}}
    (tmp_path / "sizes.json").write_text(json.dumps(sizes))
    page = draw(tmp_path)
    heights = [int(i["style"].removeprefix("--size:").removesuffix("px")) for i in page.all("i", "pipeline")]
    # 3072, 768 and 192 numbers: a quarter each time, so half the height above the shortest.
    span = TALLEST - SHORTEST
    assert heights == [SHORTEST + round(span * part) for part in (1, 0.5, 0.25, 0.5, 1)]
    assert "100 k parameters 4 times fewer numbers" in page.of("pipeline")


def test_a_pipeline_of_unknown_sizes_is_still_drawn(tmp_path, draw):
    page = draw(tmp_path)
    text = page.of("pipeline")
    assert len(page.all("i", "pipeline")) == 5 and " numbers " not in text.split("learn.")[1] and "encoder" in text


def test_a_result_of_another_origin_stands_beside_the_one_shown(finished, draw):
    now = json.loads((finished / "evaluation" / "reconstruction.json").read_text())
    (finished / "evaluation" / "reconstruction.json").write_text(json.dumps({**now, "origin": {"seed": 1}}))
    earlier = {**now, "origin": {"seed": 2}, "sets": {"heldout": {**now["sets"]["heldout"], "psnr": 19.5}}}
    (finished / "evaluation" / "reconstruction-0a1b2c3d.json").write_text(json.dumps(earlier))
    text = draw(finished).of("more")
    assert "Reconstruction of another origin (0a1b2c3d) differs in then now" in text
    assert "19.5 22.1" in text and "origin · seed 2 1" in text.lower() and "ssim" not in text.lower()
