"""Sections of single stages: what stands there where something is missing, unfinished or went wrong."""

import json
import shutil

import pytest

from fae_jax.report.reading import Embedded


@pytest.fixture
def logged(finished):
    """Replaces what a stage logged by these series of (step, value)."""

    def write(stage: str = "features", **series):
        steps: dict[int, dict] = {}
        for name, points in series.items():
            for step, value in points:
                steps.setdefault(step, {"step": step})[name] = value
        lines = [json.dumps(steps[step]) for step in sorted(steps)]
        (finished / stage / "metrics.jsonl").write_text("\n".join(lines))
        return finished

    return write


def test_every_stage_has_its_story(finished, draw):
    page = draw(finished)
    stories = {"encoder": "0", "features": "Ia", "pixels": "Ib", "finetune": "Ic", "generator": "II"}
    for name, ordinal in stories.items():
        assert page.of(name).startswith(f"{ordinal} ") and "→" in page.of(name)
    assert not page.of("post_training")  # there is none in this run
    shutil.copytree(finished / "generator", finished / "post_training")
    assert draw(finished).of("post_training").startswith("III ")


def test_a_stage_says_how_far_it_is_and_how_fast(logged, draw):
    rates = [(1, 5.0), (2, 400.0), (3, 410.0)]  # the first holds the compilation: the median is what counts
    running = logged(loss=[(1, 3.0), (50, 0.5)], images_per_second=rates, skipped=[(1, 0.0), (50, 2.0)])
    text = draw(running).of("features")
    for words in ("under way", "steps 50 of 200", "images a second 400", "steps skipped 2", "batch 16", "time 20 s"):
        assert words in text, words
    assert "loss 3 → 0.500" in text
    text = draw(logged(loss=[(1, 3.0), (200, 0.5)], skipped=[(200, 0.0)])).of("features")
    assert "under way" not in text and "steps 200 batch" in text and "skipped" not in text


def test_settings_and_times_come_from_where_they_stand(logged, draw, rewrite):
    workdir = logged(loss=[(1, 3.0)], seconds=[(1, 75.0)])
    (workdir / "timings.json").unlink()
    assert "time 1 min 15 s" in draw(workdir).of("features")  # the log says how long
    rewrite(workdir / "config.json", lambda config: config["encoder_training"].update(steps=777))
    assert "199 of 777" in draw(workdir).of("encoder")


def test_other_metrics_are_sparks_and_bookkeeping_is_not(logged, draw):
    pair = [(1, 2.0), (2, 1.0)]
    quiet = dict.fromkeys(("loss", "seconds", "skipped", "images_per_second", "decoder/skipped"), pair)
    page = draw(logged(**quiet, **{"kl_per_token": pair, "discriminator/accuracy": pair, "once": [(1, 1.0)]}))
    sparks = page.of("features").split(" step ")[1]
    assert "KL per token 2 → 1" in sparks and "discriminator · accuracy 2 → 1" in sparks
    for hidden in ("loss", "seconds", "skipped", "images", "once"):
        assert hidden not in sparks
    assert len(page.all("svg", "features")) == 3
    assert len(draw(logged(loss=pair)).all("svg", "features")) == 1


def test_one_preview_needs_no_slider_and_several_show_the_last(finished, draw):
    page = draw(finished)
    (slider,) = page.all("input", "features")
    assert (slider["min"], slider["max"], slider["value"]) == ("0", "1", "1")
    assert ["hidden" in image for image in page.all("img", "features")] == [True, False]
    assert "step 200 what features sees & makes" in page.of("features")
    (finished / "features/previews/step_00000100.png").unlink()
    assert not draw(finished).all("input", "features")
    shutil.rmtree(finished / "features/previews")
    assert not draw(finished).all("img", "features")


@pytest.mark.parametrize(
    ("size", "widest", "look"),
    [
        ((64, 32), 256, "sharp"),
        ((512, 96), 1024, "sharp broad"),
        ((900, 300), 900, "broad"),
        ((1400, 1400), 1400, ""),
    ],
)
def test_small_images_are_enlarged_by_whole_factors_and_kept_sharp(size, widest, look):
    image = Embedded("data:,", *size)
    assert (image.widest, image.look) == (widest, look)


def test_what_is_not_known_is_left_out(logged, draw, rewrite):
    workdir = logged(loss=[(200, 0.5)])
    rewrite(workdir / "config.json", lambda config: config["features"].pop("batch"))
    assert "steps 200 time 20 s" in draw(workdir).of("features")


def test_the_cache_says_what_it_holds_or_how_to_make_it(finished, draw):
    text = draw(finished).of("cache")
    for words in ("images 90", "tokens × channels 16×6", "on disk 123 kB", "cache 0a1b2c", "time 3.0 s"):
        assert words in text, words
    (finished / "latents" / "0a1b2c" / "header.json").unlink()
    assert f"Not begun. fae cache --workdir {finished}" in draw(finished).of("cache")
