"""The whole page: well formed, self-contained, complete, safe, and there at every moment of a run."""

import html
import json
import os
import re
import shlex
import shutil

import pytest
from PIL import Image

from fae_jax.cli.program import _overrides, make_parser
from fae_jax.commands.sample import parse_classes
from fae_jax.config import check, load_config, settle
from fae_jax.evaluation.tasks import check_tasks
from fae_jax.report import write_report
from fae_jax.report.pipeline import known_sizes
from fae_jax.report.reading import Record
from fae_jax.stages.figures import write_figure

STAGES = ("encoder", "features", "pixels", "finetune", "generator")


def test_a_finished_run_is_shown_whole(finished, draw):
    page = draw(finished)
    sections = {"verdict", "pipeline", *STAGES, "cache", "samples", "novelty", "understanding", "time", "next"}
    assert sections <= set(page.ids()) and len(page.ids()) == len(set(page.ids()))
    for words in (
        "small run",
        "7 of 7 targets reached",
        "what generator sees & makes",
        "the caption of nearest",
        "2.5 on [0, 0.7], 0.9 on [0.9, 1]",
        "network calls a sample 85",
        "linear probe 97.0 % 96.0 % 95.0 %",
        "unseen 22.1 dB",
        "90",
        "123 kB",
        "together, without install 2 min",
    ):
        assert words in page.text, words
    assert len(page.all("svg")) == 2 * len(STAGES)  # the loss and one other metric each
    assert page_links(page) <= set(page.ids())


def page_links(page):
    return {attributes["href"][1:] for attributes in page.all("a")}


def test_nothing_is_loaded_from_anywhere(finished):
    source = write_report(finished).read_text()
    loads = re.findall(r"(?:src|href|srcset|action|poster|data)\s*=\s*[\"']?([^\"'>\s]+)", source)
    assert loads and all(load.startswith(("data:image/", "#")) for load in loads)
    assert "http://" not in source and "https://" not in source
    assert not re.search(
        r"@import|url\(|fetch\(|XMLHttp|<iframe|<object|<embed|//[a-z0-9.-]+\.[a-z]{2,}/(?!2000/svg)", source
    )


def test_images_have_words_and_sizes(finished, draw):
    images = draw(finished).all("img")
    assert len(images) == 1 + 2 * len(STAGES) + 2 + 3
    assert all(image["alt"] and int(image["width"]) > 0 and int(image["height"]) > 0 for image in images)
    assert sum("hidden" in image for image in images) == len(STAGES)  # all previews but the last of each stage
    assert all("hidden" not in image for image in images if image.get("data-step") == "200")


def test_an_empty_directory_has_a_page_that_says_how_to_begin(tmp_path, draw):
    page = draw(tmp_path)
    assert page.text.count("not measured yet") >= 9
    for name in STAGES:
        assert name in page.ids()
        assert f"Not begun. fae train {name} --workdir {tmp_path}" in page.text
    assert f"fae cache --workdir {tmp_path}" in page.text and "No samples yet" in page.text
    assert not page.all("img")
    assert page_links(page) <= set(page.ids())


def test_a_run_under_way_shows_what_there_is(finished, draw):
    for name in ("samples", "evaluation", "latents", "generator", "finetune"):
        shutil.rmtree(finished / name)
    metrics = finished / "pixels" / "metrics.jsonl"
    metrics.write_text("".join(metrics.read_text().splitlines(keepends=True)[:20]) + '{"step": 41, "lo')
    shutil.rmtree(finished / "pixels" / "previews")
    page = draw(finished)
    assert page.text.count("under way") >= 1 and "39 of 200" in page.text
    assert "Not begun. fae train finetune" in page.text
    assert {"novelty", "understanding"}.isdisjoint(page.ids())


FILES = (
    "config.json",
    "timings.json",
    "latents/0a1b2c/header.json",
    "features/metrics.jsonl",
    "features/previews/README.json",
    "features/previews/step_00000200.png",
    "samples/guided/samples.npz",
    "samples/guided/settings.json",
    "samples/guided/grid.png",
    "evaluation/generation.json",
    "evaluation/reconstruction.json",
    "evaluation/probe.json",
    "evaluation/figures/nearest.png",
)
BROKEN = b'{"sets": [1], "judge": 3, "shape": "x", "data": [], "encoder": 7, "linear": "y", "class_names": {}}'


@pytest.mark.parametrize("file", FILES)
def test_any_file_may_be_missing_or_broken(finished, page_of, file):
    """Gone, cut in half, an array where an object should be, or an object with the wrong things in it."""
    path = finished / file
    whole = path.read_bytes()
    for content in (None, whole[: len(whole) // 2], b"[1, 2]", BROKEN):
        path.unlink() if content is None else path.write_bytes(content)
        assert {*STAGES, "samples", "next"} <= set(page_of(write_report(finished).read_text()).ids())


def test_names_are_text_wherever_they_stand(finished, draw):
    evil = '<script>alert("x")</script>\'&'
    config = json.loads((finished / "config.json").read_text())
    config["name"] = evil
    config["encoder"]["name"] = evil
    (finished / "config.json").write_text(json.dumps(config))
    path = finished / "evaluation" / "generation.json"
    result = json.loads(path.read_text())
    result["class_names"][0] = evil
    guided = result["sets"].pop("guided")
    guided["accuracy_per_class"] = {evil: 0.5}
    guided["lowest_class"]["name"] = evil
    guided["sampling"]["label_policy"] = evil
    result["sets"][evil] = guided
    path.write_text(json.dumps(result))
    metrics = finished / "features" / "metrics.jsonl"
    metrics.write_text("".join(json.dumps({"step": step, "loss": 1.0, evil: 2.0}) + "\n" for step in (1, 2)))
    for file in ("encoder/previews/README.json", "samples/guided/settings.json"):
        (finished / file).write_text(json.dumps({"caption": evil, "sampler": evil, "guidance": evil}))
    write_figure(finished, "nearest", Image.new("RGB", (9, 9)), evil)
    (finished / "evaluation" / "depth.json").write_text(json.dumps({evil: {evil: evil}}))
    page = draw(finished)
    assert len(page.all("script")) == 1
    assert page.text.count('<script>alert("x")</script>') >= 10
    assert not any("alert" in name for tag, attributes in page.elements for name in (tag, *attributes))


def test_names_that_are_no_utf8_are_shown_with_escapes(finished, draw, rewrite):
    def rename(result):
        result["class_names"][0] = "caf\udce9"
        result["sets"]["guided"]["lowest_class"]["name"] = "caf\udce9"

    rewrite(finished / "evaluation" / "generation.json", rename)
    assert "recognised least (caf\\udce9," in draw(finished).of("verdict")


def test_a_published_encoder_has_no_stage_of_its_own(finished, draw):
    shutil.rmtree(finished / "encoder")
    config = json.loads((finished / "config.json").read_text())
    config["encoder"]["train"] = False
    (finished / "config.json").write_text(json.dumps(config))
    page = draw(finished)
    assert "encoder" not in page.ids() and "encoder" not in page_links(page)


def test_sizes_come_from_their_file_or_from_what_the_run_left(finished, draw):
    sizes = known_sizes(Record.read(finished))
    assert (sizes.image, sizes.features, sizes.latent) == ((8, 8, 3), (4, 4, 24), (4, 4, 6))
    assert "4 times fewer numbers" in draw(finished).text
    known = {
        "image": [16, 16, 3],
        "features": [8, 8, 32],
        "latent": [8, 8, 4],
        "parameters": {"generator": 675256736},
    }
    (finished / "sizes.json").write_text(json.dumps(known))
    sizes = known_sizes(Record.read(finished))
    assert (sizes.image, sizes.features, sizes.latent) == ((16, 16, 3), (8, 8, 32), (8, 8, 4))
    assert "8×8×4" in draw(finished).text and "675 M parameters" in draw(finished).text


def test_commands_are_safe_in_a_shell_whatever_the_directory_is_called(finished, page_of):
    strange = finished.rename(finished.with_name("my run; rm -rf 'x'"))
    source = write_report(strange).read_text()
    lines = [html.unescape(line) for line in re.findall("<code>(.*?)</code>", source)]
    mine = [line for line in lines if "my run" in line]
    assert len(mine) == 3 and len(lines) == 7
    for line in mine:
        words = shlex.split(line)
        assert words[words.index("--workdir") + 1] == str(strange)
    for line in lines:
        assert shlex.split(line)


def test_the_command_for_samples_asks_for_classes_that_there_are(finished, draw, rewrite):
    assert "--classes 0,1 --number" in draw(finished).of("next")
    rewrite(finished / "evaluation/generation.json", lambda result: result.update(class_names=list("0123456789")))
    assert "--classes 3,7 --number" in draw(finished).of("next")
    rewrite(finished / "config.json", lambda config: config.update(condition={"kind": "none"}))
    assert "--classes" not in draw(finished).of("next") and "generation" not in draw(finished).of("next")


def test_every_command_of_the_page_can_be_asked_for(finished):
    lines = [html.unescape(line) for line in re.findall("<code>(.*?)</code>", write_report(finished).read_text())]
    for line in lines:
        words = shlex.split(line.rpartition("--command=")[2].strip("'") if "--command=" in line else line)
        overrides, (verb, *others) = _overrides(words[words.index("fae") + 1 :])
        arguments = make_parser(verb).parse_args([verb, *others])
        if overrides:
            settle(load_config(arguments.config), overrides)
        if getattr(arguments, "task", None):
            check_tasks(check(load_config("quickstart")), arguments.task)
        if verb == "sample":
            parse_classes(arguments.classes or "all", ["ant", "bee", "cat", "dog"])


def test_a_report_that_cannot_be_written_leaves_the_one_that_was_there(finished, monkeypatch):
    path = write_report(finished)
    before = path.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_report(finished)
    assert path.read_bytes() == before
    assert not list(finished.glob(".report*"))


def test_a_directory_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a working directory; `fae run"):
        write_report(tmp_path / "none")


def test_the_same_directory_gives_the_same_page(finished):
    assert write_report(finished).read_bytes() == write_report(finished).read_bytes()
