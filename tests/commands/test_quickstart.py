"""The quickstart as a user runs it, judged by a classifier trained here, on scikit-learn's own images."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from running import TINY, fae, signal_when, start
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC

from fae_jax.config import flatten, load_config

pytestmark = pytest.mark.slow(seconds=60)
# As a user's: without what spares the other tests compilation, and makes training slower
AS_A_USER = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    out = tmp_path_factory.mktemp("quickstart") / "out"
    command = [sys.executable, "-m", "fae_jax", "quickstart", "--out", str(out), "--json"]
    done = subprocess.run(command, env=AS_A_USER, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stderr[-2000:]
    return out, json.loads(done.stdout.splitlines()[-1])


def test_samples_are_recognised_by_a_classifier_that_is_not_ours(quickstart: tuple[Path, dict]) -> None:
    pixels, labels = load_digits(return_X_y=True)
    train, held, train_labels, held_labels = train_test_split(
        pixels, labels, test_size=0.2, random_state=0, stratify=labels
    )
    judge = SVC(gamma=0.001).fit(train, train_labels)
    assert judge.score(held, held_labels) >= 0.98
    with np.load(quickstart[0] / "samples/guided/samples.npz") as drawn:
        images, asked = drawn["arr_0"], drawn["arr_1"]
    assert images.shape == (500, 32, 32, 3)
    assert (np.bincount(asked) == 50).all()
    small = images.astype(np.float64).mean(-1).reshape(-1, 8, 4, 8, 4).mean((2, 4)) * 16 / 255
    right = judge.predict(small.reshape(-1, 64)) == asked
    assert right.mean() >= 0.92
    assert min(right[asked == digit].mean() for digit in range(10)) >= 0.8


def test_features_keep_their_meaning_and_images_come_back(quickstart: tuple[Path, dict]) -> None:
    scores = quickstart[1]["evaluation"]
    assert scores["probe"]["linear"]["loss_in_points"] <= 1.5
    assert scores["probe"]["linear"]["x"] >= 0.95
    assert scores["probe"]["cosine"] >= 0.95
    assert scores["reconstruction"]["sets"]["heldout"]["psnr"] >= 20


def test_no_sample_is_a_copy_and_the_distances_stand_side_by_side(quickstart: tuple[Path, dict]) -> None:
    guided = quickstart[1]["evaluation"]["generation"]["sets"]["guided"]
    assert guided["nearest"]["identical"] == 0
    assert guided["nearest"]["fraction_close"] <= 0.05
    assert 0 < guided["frechet"]["train_to_heldout"] < guided["frechet"]["samples_to_heldout"]
    assert (quickstart[0] / "evaluation/figures/nearest.png").is_file()


def test_report_opens_offline(quickstart: tuple[Path, dict]) -> None:
    page = (quickstart[0] / "report.html").read_text()
    assert not re.search(r"""(src|href)=["'](https?:)?//""", page)
    assert page.count("data:image/") > 10


def test_run_again_it_only_reads(quickstart: tuple[Path, dict]) -> None:
    out, first = quickstart
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/checkpoints/*")}
    begun = time.monotonic()
    command = [sys.executable, "-m", "fae_jax", "quickstart", "--out", str(out), "--json"]
    done = subprocess.run(command, env=AS_A_USER, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0
    assert json.loads(done.stdout.splitlines()[-1]) == first
    assert {path: path.stat().st_mtime_ns for path in out.glob("*/checkpoints/*")} == before
    assert time.monotonic() - begun < 60


def tiny_overrides() -> list[str]:
    """What makes the quickstart as small as the tiny experiment."""
    small, whole = flatten(load_config(str(TINY)), every=False), flatten(load_config("quickstart"))
    kept = ("name", "checkpoint.", "logging.", "watch.", "data.holdout")
    changed = {name: value for name, value in small.items() if value != whole[name] and not name.startswith(kept)}
    return [f"--config.{name}={value}" for name, value in {**changed, "evaluation.samples": 20}.items()]


def test_killed_while_it_evaluates_and_reports_it_goes_on(tmp_path: Path) -> None:
    words, out = ["quickstart", "--out", tmp_path / "q", *tiny_overrides(), "--json"], tmp_path / "q"
    process = start(*words)  # killed as soon as a score is there, while the next one is computed
    code, err = signal_when(process, (out / "evaluation" / "reconstruction.json").is_file, signal.SIGKILL)
    assert code == -signal.SIGKILL, err
    kept = {path: path.stat().st_mtime_ns for path in [*out.glob("evaluation/*.json"), *out.glob("*/checkpoints/*")]}
    printed, _ = fae(*words)
    assert set(json.loads(printed.splitlines()[-1])["evaluation"]) == {"probe", "reconstruction", "generation"}
    assert all(path.stat().st_mtime_ns == moment for path, moment in kept.items())
    assert (out / "report.html").is_file()


def test_it_fits_in_three_gigabytes(quickstart: tuple[Path, dict]) -> None:
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 <= 3e9
