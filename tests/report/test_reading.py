"""A working directory in every state of disrepair."""

import json

import numpy as np
import pytest
from damage import flipped
from PIL import Image

from fae_jax.report import reading
from fae_jax.report.reading import Record, at, branch, measured, read_image, read_object, read_series


def test_metrics_survive_cut_lines_restarts_and_what_is_no_number(tmp_path):
    lines = [
        '{"step": 1, "loss": 3.0, "seconds": 0.1}',
        '{"step": 3, "loss": 9.0}',
        '{"step": 2, "loss": 2.0, "note": "text", "flag": true}',
        '{"step": 3, "loss": 1.0}',  # written again after a restart
        '{"step": 4, "loss": NaN}',
        '{"step": 5, "loss": null}',
        "[1, 2]",
        '"step"',
        "",
        '{"loss": 7.0}',
        '{"step": 6, "lo',
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    assert read_series(tmp_path / "metrics.jsonl") == {"loss": [(1, 3.0), (2, 2.0), (3, 1.0)], "seconds": [(1, 0.1)]}


def test_metrics_that_are_missing_or_no_text_are_empty(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(b"\xff\xfe\x00garbage\n")
    assert read_series(tmp_path / "metrics.jsonl") == {}
    assert read_series(tmp_path / "none.jsonl") == {}


def test_objects_that_cannot_be_read_are_empty(tmp_path):
    for name, content in (("cut", '{"a": '), ("list", "[1]"), ("binary", "\udcff")):
        (tmp_path / name).write_bytes(content.encode("utf-8", "surrogateescape"))
        assert read_object(tmp_path / name) == {}
    assert read_object(tmp_path / "missing") == {}
    assert read_object(tmp_path) == {}


def test_ways_into_nested_values():
    values = {"a": {"b": 2, "c": True, "d": float("inf"), "e": "3"}}
    assert at(values, "a", "b") == 2 and at(values, "a", "b", "c") is None and at(None, "a") is None
    assert measured(values, "a", "b") == 2.0
    assert [measured(values, "a", key) for key in "cdex"] == [None] * 4
    assert branch(values, "a")["b"] == 2 and branch(values, "a", "b") == {}


def test_finished_record_holds_everything(finished):
    record = Record.read(finished)
    names = ["encoder", "features", "pixels", "finetune", "generator", "post_training"]
    assert [stage.name for stage in record.stages] == names and not record.stages[-1].begun
    features = record.stages[1]
    assert features.begun and features.step == 199 and features.last("images_per_second") == 400.0
    assert [step for step, _ in features.previews] == [100, 200]
    assert features.caption == "what features sees & makes"
    assert [samples.name for samples in record.samples] == ["unguided", "guided"]
    assert record.samples[1].images.shape == (40, 8, 8, 3)
    assert set(record.results) == {"generation", "reconstruction", "probe"}
    assert record.figures["nearest"].caption == "the caption of nearest"
    assert record.timings["cache"] == 3.0 and record.latents[0]["images"] == 90
    assert record.set_of("guided")["accuracy"] == 0.95 and record.set_of("none") == {}


def test_an_empty_directory_is_an_empty_record(tmp_path):
    record = Record.read(tmp_path)
    assert not any(stage.begun for stage in record.stages)
    assert record.samples == record.latents == [] and record.results == record.figures == record.timings == {}


def test_of_many_previews_a_few_are_kept_with_the_first_and_the_last(tmp_path):
    folder = tmp_path / "pixels" / "previews"
    folder.mkdir(parents=True)
    for step in range(0, 1000, 10):
        Image.new("RGB", (4, 4)).save(folder / f"step_{step:08d}.png")
    (folder / "step_garbage.png").write_bytes(b"no image")
    (folder / "step_00000500.png").write_bytes(b"no image")
    steps = [step for step, _ in Record.read(tmp_path, previews=5).stages[2].previews]
    assert len(steps) in (4, 5) and steps[0] == 0 and steps[-1] == 990


@pytest.mark.parametrize("damage", ["cut", "other", "labels", "floats", "pickle", "huge"])
def test_samples_that_are_not_what_they_should_be_are_left_out(finished, damage, monkeypatch):
    archive = finished / "samples" / "guided" / "samples.npz"
    images, labels = np.zeros((4, 8, 8, 3), np.uint8), np.arange(4)
    if damage == "cut":
        archive.write_bytes(archive.read_bytes()[:200])
    elif damage == "other":
        np.savez(archive, images=images)
    elif damage == "labels":
        np.savez(archive, images=images, labels=labels[:3])
    elif damage == "floats":
        np.savez(archive, images=images.astype(np.float32), labels=labels)
    elif damage == "pickle":
        np.savez(archive, images=np.array([{}], dtype=object), labels=labels)
    else:
        monkeypatch.setattr(reading, "LARGEST_SAMPLES", 100)
    guided = Record.read(finished).samples[1]
    assert guided.images is None and guided.labels is None
    assert guided.grid is not None and guided.settings["seed"] == 9


def test_samples_damaged_anywhere_are_left_out_or_read(tmp_path):
    np.savez(tmp_path / "samples.npz", images=np.zeros((4, 4, 4, 3), np.uint8), labels=np.arange(4))
    whole, rng = (tmp_path / "samples.npz").read_bytes(), np.random.default_rng(0)
    for _ in range(200):
        (tmp_path / "samples.npz").write_bytes(flipped(whole, rng))
        images, labels = reading._read_archive(tmp_path / "samples.npz")
        assert (images is None and labels is None) or images.shape == (len(labels), 4, 4, 3)


def test_images_stand_in_the_page_unchanged_unless_they_are_large(tmp_path, monkeypatch):
    import base64
    import io

    def back(embedded):
        kind, content = embedded.source.split(";base64,")
        return kind.removeprefix("data:image/"), Image.open(io.BytesIO(base64.b64decode(content)))

    noise = np.random.default_rng(0).integers(0, 256, (50, 100, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    kind, image = back(read_image(tmp_path / "a.png"))
    assert kind == "png" and np.array_equal(np.asarray(image), noise)
    monkeypatch.setattr(reading, "WIDEST", 40)
    kind, image = back(read_image(tmp_path / "a.png"))
    assert image.size == (40, 20)
    monkeypatch.setattr(reading, "HEAVIEST", 500)
    kind, image = back(read_image(tmp_path / "a.png"))
    assert kind == "jpeg" and image.size == (40, 20)
    Image.fromarray(noise).convert("RGBA").save(tmp_path / "b.png")
    assert back(read_image(tmp_path / "b.png"))[0] == "png"  # transparency is kept
    assert read_image(tmp_path / "none.png") is None
    (tmp_path / "c.png").write_text(json.dumps({}))
    assert read_image(tmp_path / "c.png") is None
