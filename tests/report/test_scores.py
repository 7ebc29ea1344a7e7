"""Sections of the scores, and the drawing of the pipeline with its sizes."""

import json

import numpy as np
import pytest
from PIL import Image

from fae_jax.report.closing import times_section
from fae_jax.report.markup import render
from fae_jax.report.pipeline import SHORTEST, TALLEST, Sizes, drawing
from fae_jax.report.reading import Record
from fae_jax.report.scores import (
    class_names,
    guidance_words,
    novelty_section,
    other_section,
    samples_section,
)
from fae_jax.report.understanding import understanding_section


@pytest.fixture
def text_of(page_of):
    return lambda markup: page_of(render(markup)).text


def rewrite(path, change):
    result = json.loads(path.read_text())
    change(result)
    path.write_text(json.dumps(result))


def test_unguided_samples_come_before_guided_ones(finished, text_of):
    (finished / "samples" / "another").mkdir()
    text = text_of(samples_section(Record.read(finished), ""))
    assert text.index("Unguided") < text.index("Guided") < text.index("Another")
    assert "recognised 70.0 % Fréchet distance 0.810" in text and "guidance none" in text


def test_a_grid_is_lettered_where_the_images_are_at_hand_and_taken_as_it_is_where_not(finished, page_of):
    def widths():
        return [
            int(image["width"]) for image in page_of(render(samples_section(Record.read(finished), ""))).all("img")
        ]

    drawn = widths()
    assert len(drawn) == 2 and min(drawn) > 10 * 64
    (finished / "samples" / "guided" / "samples.npz").unlink()
    assert widths() == [drawn[0], 8]
    (finished / "samples" / "guided" / "grid.png").unlink()
    assert widths() == [drawn[0]]


def test_labels_beyond_the_class_names_fall_back_to_the_grid_that_lies_there(finished, page_of):
    archive = finished / "samples" / "guided" / "samples.npz"
    np.savez(archive, images=np.zeros((2, 8, 8, 3), np.uint8), labels=np.array([0, 7]))
    images = page_of(render(samples_section(Record.read(finished), ""))).all("img")
    assert int(images[1]["width"]) == 8


def test_class_names_come_from_the_scores_or_from_the_cache(finished):
    assert class_names(Record.read(finished)) == ["ant", "bee", "cat", "dog"]
    (finished / "evaluation" / "generation.json").unlink()
    assert class_names(Record.read(finished)) == ["ant", "bee", "cat", "dog"]
    (finished / "latents" / "0a1b2c" / "header.json").unlink()
    assert class_names(Record.read(finished)) is None


@pytest.mark.parametrize(
    ("guidance", "words"),
    [
        (None, "none"),
        ("none", "none"),
        (1.0, "none"),
        (2.5, "2.5"),
        ([[0.7, 0.9, 1.0], [0.0, 0.7, 2.5]], "2.5 on [0, 0.7], 1 on [0.7, 0.9]"),
        ("strange", "strange"),
        ([1, 2], "[1, 2]"),
    ],
)
def test_guidance_in_words(guidance, words):
    assert guidance_words(guidance) == words


def test_each_class_has_a_bar_for_each_set(finished, page_of):
    def change(result):
        result["sets"]["guided"]["accuracy_per_class"]["bee"] = 0.625
        result["sets"]["unguided"]["accuracy_per_class"]["bee"] = None

    rewrite(finished / "evaluation" / "generation.json", change)
    page = page_of(render(samples_section(Record.read(finished), "")))
    bars = [i["style"] for i in page.all("i") if (i.get("class") or "").startswith("bar") and i.get("style")]
    assert len(bars) == 2 * 4 - 1 and "width:62.5%" in bars
    assert "bee 62.5 % cat" in page.text


def test_of_very_many_classes_the_weakest_are_shown(finished, text_of):
    def change(result):
        for scores in result["sets"].values():
            scores["accuracy_per_class"] = {f"class {n}": (n * 37 % 1000) / 1000 for n in range(1000)}

    rewrite(finished / "evaluation" / "generation.json", change)
    text = text_of(samples_section(Record.read(finished), ""))
    assert "The 24 classes recognised least" in text
    assert "class 0 0.0 %" in text and "class 973 0.1 %" in text and "class 1 3.7 %" not in text


def test_novelty_puts_samples_beside_honest_images(finished, text_of):
    text = text_of(novelty_section(Record.read(finished)))
    assert "guided samples 0.200 0.970 2.5 % (1) 0" in text
    assert "unseen real images 0.150 0.930 1.0 % –" in text
    assert "the caption of nearest" in text


def test_sections_without_results_are_left_out(tmp_path):
    record = Record.read(tmp_path)
    assert novelty_section(record) is None and understanding_section(record) is None
    assert other_section(record) is None and times_section(record) is None


def test_a_figure_alone_is_shown(tmp_path, text_of):
    from fae_jax.stages.figures import write_figure

    write_figure(tmp_path, "features", Image.new("RGB", (9, 9)), "in the same colours")
    text = text_of(understanding_section(Record.read(tmp_path)))
    assert "in the same colours" in text and "linear probe" not in text


def test_several_reconstructions_have_a_row_each(finished, text_of):
    def change(result):
        result["sets"]["heldout_before_finetune"] = {"count": 30, "psnr": 19.5, "ssim": 0.8}

    rewrite(finished / "evaluation" / "reconstruction.json", change)
    text = text_of(understanding_section(Record.read(finished)))
    assert "unseen 22.1 dB 18.0 dB 0.850 30" in text
    assert "heldout before finetune 19.5 dB – 0.800 30" in text


def test_times_are_in_order_and_as_long_as_they_took(finished, page_of):
    rewrite(finished / "timings.json", lambda times: times.update({"extra": 50.0}))
    page = page_of(render(times_section(Record.read(finished))))
    order = [
        "install",
        "encoder",
        "features",
        "pixels",
        "finetune",
        "cache",
        "generator",
        "sample",
        "evaluate",
        "extra",
    ]
    places = [page.text.index(name) for name in order]
    assert places == sorted(places)
    assert [i["style"] for i in page.all("i")][0] == "width:100.0%"
    assert "width:20.0%" in [i["style"] for i in page.all("i")]
    assert "together, without install 2 min 50 s" in page.text


def test_blocks_are_as_tall_as_the_root_of_their_numbers(page_of):
    sizes = Sizes(image=(32, 32, 3), features=(4, 4, 48), latent=(4, 4, 12), parameters={"compressor": 1e5})
    page = page_of(render(drawing(sizes, "vit")))
    heights = [int(i["style"].removeprefix("--size:").removesuffix("px")) for i in page.all("i")]
    # 3072, 768 and 192 numbers: a quarter each time, so half the height above the shortest.
    span = TALLEST - SHORTEST
    assert heights == [SHORTEST + round(span * part) for part in (1, 0.5, 0.25, 0.5, 1)]
    assert "100 k parameters 4 times fewer numbers" in page.text and "vit" in page.text


def test_a_pipeline_of_unknown_sizes_is_still_drawn(page_of):
    page = page_of(render(drawing(Sizes(image=None, features=None, latent=None, parameters={}), "")))
    assert len(page.all("i")) == 5 and "numbers" not in page.text and "encoder" in page.text
