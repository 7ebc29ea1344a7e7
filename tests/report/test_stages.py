"""Sections of single stages: what is said where something is missing, unfinished or went wrong."""

import json

import pytest

from fae_jax.report.markup import render
from fae_jax.report.reading import Embedded, Record, Stage
from fae_jax.report.stages import (
    STORIES,
    cache_section,
    facts,
    image_tag,
    scrubber,
    sparks,
    stage_section,
)


def stage(name: str = "features", *, previews=(), **series) -> Stage:
    return Stage(
        name=name, series={key: list(value) for key, value in series.items()}, previews=list(previews), caption=""
    )


@pytest.fixture
def text_of(page_of):
    return lambda markup: page_of(render(markup)).text


def test_every_stage_has_its_story():
    assert list(STORIES) == ["encoder", "features", "pixels", "finetune", "generator"]
    assert [story.number for story in STORIES.values()] == ["0", "Ia", "Ib", "Ic", "II"]


def test_a_stage_says_how_far_it_is_and_how_fast(finished, text_of):
    record = Record.read(finished)
    rates = [(1, 5.0), (2, 400.0), (3, 410.0)]  # the first holds the compilation: the median is what counts
    running = stage(loss=[(1, 3.0), (50, 0.5)], images_per_second=rates, skipped=[(1, 0.0), (50, 2.0)])
    text = text_of(stage_section(running, record, "fae train features"))
    for words in (
        "under way",
        "steps 50 of 200",
        "images a second 400",
        "steps skipped 2",
        "batch 16",
        "time 20 s",
    ):
        assert words in text, words
    assert "loss 3 → 0.500" in text
    done = stage(loss=[(1, 3.0), (200, 0.5)], skipped=[(200, 0.0)])
    text = text_of(stage_section(done, record, "fae train features"))
    assert "under way" not in text and "steps 200 batch" in text and "skipped" not in text


def test_without_timings_the_log_says_how_long(finished, text_of):
    (finished / "timings.json").unlink()
    running = stage(loss=[(1, 3.0)], seconds=[(1, 75.0)])
    assert "time 1 min 15 s" in text_of(stage_section(running, Record.read(finished), ""))


def test_the_encoders_settings_are_found_under_their_own_name(finished, text_of):
    config = json.loads((finished / "config.json").read_text())
    config["encoder_training"]["steps"] = 77
    (finished / "config.json").write_text(json.dumps(config))
    text = text_of(stage_section(stage("encoder", loss=[(5, 1.0)]), Record.read(finished), ""))
    assert "5 of 77" in text


def test_other_metrics_are_sparks_and_bookkeeping_is_not(text_of):
    pair = [(1, 2.0), (2, 1.0)]
    shown = sparks(
        stage(
            loss=pair,
            seconds=pair,
            skipped=pair,
            images_per_second=pair,
            kl_per_token=pair,
            psnr=pair,
            once=[(1, 1.0)],
        )
    )
    text = text_of(shown)
    assert "KL per token" in text and "PSNR" in text and "2 → 1" in text
    for hidden in ("loss", "seconds", "skipped", "images", "once"):
        assert hidden not in text
    assert shown.count("<svg") == 2
    assert sparks(stage(loss=pair)) is None
    players = stage(**{"decoder/loss": pair, "decoder/skipped": pair, "discriminator/accuracy": pair})
    assert "discriminator · accuracy" in text_of(sparks(players))
    assert "skipped" not in text_of(sparks(players))


def test_one_preview_needs_no_slider_and_several_show_the_last(page_of):
    images = [(step, Embedded("data:image/png;base64,", 30, 10, "inside")) for step in (5, 50, 500)]
    assert scrubber([], "", "x") is None
    one = page_of(scrubber(images[:1], "", "x"))
    assert not one.all("input") and one.text == "inside"
    page = page_of(scrubber(images, "what it shows", "x"))
    (slider,) = page.all("input")
    assert (slider["min"], slider["max"], slider["value"]) == ("0", "2", "2")
    assert ["hidden" in image for image in page.all("img")] == [True, True, False]
    assert "step 500" in page.text and "what it shows" in page.text


@pytest.mark.parametrize(
    ("size", "widest", "classes"),
    [
        ((64, 32), 256, "sharp"),
        ((512, 96), 1024, "sharp broad"),
        ((900, 300), 900, "broad"),
        ((1400, 1400), 1400, None),
    ],
)
def test_small_images_are_enlarged_by_whole_factors_and_kept_sharp(page_of, size, widest, classes):
    (image,) = page_of(image_tag(Embedded("data:,", *size), "words")).all("img")
    assert image["style"] == f"max-width:min(100%,{widest}px)"
    assert image.get("class") == classes


def test_facts_that_are_not_known_are_left_out(text_of):
    assert text_of(facts([("a", 1), ("b", None), ("c", ""), ("d", "–"), ("e", "x")])) == "a 1 e x"


def test_the_cache_says_what_it_holds_or_how_to_make_it(finished, text_of):
    text = text_of(cache_section(Record.read(finished), "fae cache --workdir W"))
    for words in ("images 90", "tokens × channels 16×6", "on disk 123 kB", "cache 0a1b2c", "time 3.0 s"):
        assert words in text, words
    (finished / "latents" / "0a1b2c" / "header.json").unlink()
    assert "Not begun. fae cache --workdir W" in text_of(
        cache_section(Record.read(finished), "fae cache --workdir W")
    )
