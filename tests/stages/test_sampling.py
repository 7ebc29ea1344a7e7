"""Sets of samples come as a stream: into files, into scores, from one host or several, never into one array."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawing import Blocks
from PIL import Image
from running import ROOT, environment

from fae_jax.data.pixels import to_uint8
from fae_jax.data.prompts import ByPrompt, open_layout
from fae_jax.stages import sampling
from fae_jax.stages.figures import class_grid
from fae_jax.stages.sampling import Drawing, choose_labels, mean_evaluations, share

SMALL = {"size": 32, "batch": 4}


def made(folder: Any, count: int = 10, **more: Any) -> tuple[Drawing, list[sampling.Drawn]]:
    labels = choose_labels(range(3), count, "balanced", 0)
    drawing = Drawing(fae=Blocks(**SMALL), folder=folder, labels=labels, guidance=None, **more)
    return drawing, list(drawing)


def test_the_stream_the_file_and_the_model_give_the_same_images(folder: Any):
    drawing, pieces = made(folder)
    assert [place for place, _, _ in pieces] == [0, 4, 8] and max(len(images) for _, images, _ in pieces) == 4
    images, labels = (np.concatenate([piece[part] for piece in pieces]) for part in (1, 2))
    np.testing.assert_array_equal(images, to_uint8(drawing.fae.generate(drawing.labels, guidance=None)))
    np.testing.assert_array_equal(labels, drawing.labels)
    with (folder / "samples.npz").open("rb") as file, np.load(file) as kept:
        np.testing.assert_array_equal(kept["arr_0"], images)
        np.testing.assert_array_equal(kept["arr_1"], labels)
    with (folder / "grid.png").open("rb") as file, Image.open(file) as grid:
        np.testing.assert_array_equal(grid, class_grid(images, labels, drawing.fae.classes))
    settings = json.loads((folder / "settings.json").read_text())
    assert settings == json.loads(json.dumps({**drawing.origin, "count": 10}))
    assert settings["checkpoint"] == 3 and settings["ema"] == "0.9" and len(settings["weights"]["generator"]) == 64


def test_a_set_given_up_midway_keeps_the_one_before(tmp_path: Path):
    made(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    stream = iter(Drawing(fae=Blocks(**SMALL), folder=tmp_path, labels=np.zeros(9, np.int32), guidance=None, seed=1))
    next(stream)
    stream.close()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_shares_cover_a_set_in_order():
    for total in (1, 2, 7, 64):
        for hosts in (1, 2, 3, 8):
            ends = [share(total, host, hosts) for host in range(hosts)]
            assert [place for first, last in ends for place in range(first, last)] == list(range(total))


def test_hosts_draw_one_set_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """One after the other here, the first last; two real processes: tests/parallel/test_evaluating.py."""
    _, whole = made(tmp_path / "one", single=True)
    seen: list[sampling.Drawn] = []
    monkeypatch.setattr(sampling, "wait_for_all", lambda what: None)
    monkeypatch.setattr(sampling.jax, "process_count", lambda: 3)
    for host in (2, 1, 0):
        monkeypatch.setattr(sampling, "is_first", lambda host=host: host == 0)
        monkeypatch.setattr(sampling.jax, "process_index", lambda host=host: host)
        seen = made(tmp_path / "three")[1] + seen
    np.testing.assert_array_equal(*(np.concatenate([piece[1] for piece in pieces]) for pieces in (whole, seen)))
    assert [place for place, _, _ in seen] == [0, 3, 6]
    kept = [np.load(tmp_path / name / "samples.npz")["arr_0"] for name in ("one", "three")]
    np.testing.assert_array_equal(*kept)
    assert {path.name for path in (tmp_path / "three").iterdir()} == {"samples.npz", "grid.png", "settings.json"}
    singles = sorted((tmp_path / "one" / "images").iterdir())
    assert [path.name for path in singles][:2] == ["000000-class_0.png", "000001-class_1.png"] and len(singles) == 10
    with Image.open(singles[7]) as image:
        np.testing.assert_array_equal(image, kept[0][7])


def test_a_layout_takes_in_what_every_host_drew_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sampling, "wait_for_all", lambda what: None)
    monkeypatch.setattr(sampling.jax, "process_count", lambda: 2)
    (tmp_path / "prompts").mkdir()
    for name in "abc":
        (tmp_path / "prompts" / f"{name}.txt").write_text(name)
    for host in (1, 0):
        monkeypatch.setattr(sampling, "is_first", lambda host=host: host == 0)
        monkeypatch.setattr(sampling.jax, "process_index", lambda host=host: host)
        layout = ByPrompt(open_layout("dpg", str(tmp_path / "prompts")), tmp_path / "dpg", 4)
        made(tmp_path / "set", 12, layout=layout)
    images = np.load(tmp_path / "set" / "samples.npz")["arr_0"]
    for row, name in enumerate("abc"):
        with Image.open(tmp_path / "dpg" / f"{name}.png") as image:
            np.testing.assert_array_equal(np.asarray(image)[32:, 32:], images[4 * row + 3])


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_samples(tmp_path: Path):
    """1,000 and then 5,000 images at 256² through sampling, a score and the files, in a process of its own."""
    command = [sys.executable, Path(__file__).with_name("drawing.py"), tmp_path, "1000", "5000"]
    done = subprocess.run(command, env=environment(), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, second = json.loads(done.stdout.splitlines()[-1])
    assert second < 2000 and second - first < 200  # 5,000 images are 983 MB


def test_evaluations_are_averaged_over_images_of_batches_of_any_size():
    spent = [np.full(count, count, np.int32) for count in range(1, 9)]
    for _ in range(5):  # signatures are checked on an element at random
        assert mean_evaluations(spent) == pytest.approx(sum(n * n for n in range(1, 9)) / sum(range(1, 9)))
