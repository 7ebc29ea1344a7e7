"""A working directory in a bucket: a whole experiment, killed while it writes, and buckets that are not to be had."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from running import (
    TINY,
    TRAINED,
    assert_same_arrays,
    curve,
    environment,
    fae,
    saved_state,
    signal_when,
    start,
)
from tiny import STEPS

import fae_jax
from fae_jax.files.moving import names_below
from fae_jax.workdir import Workdir

SWEEP = """\
from fae_jax.sweeps import Sweep, grid

def get_sweep():
    points = grid({"generator.learning_rate": (1e-4, 1e-2)})
    return Sweep(points=points, stages=("generator",), metric="generator.loss")
"""


def half_written(checkpoints: Any, step: int) -> Callable[[], bool]:
    """Whether a checkpoint is begun: on the way there are several objects, and one says at last that it is whole."""
    files, folder = fsspec.filesystem("gs"), str(checkpoints / str(step))
    return lambda: bool(files.find(folder))


@pytest.mark.slow(seconds=160)
def test_an_experiment_in_a_bucket_is_the_one_on_a_disk(
    finished: Path, bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    run = ("run", "--config", TINY, "--workdir", bucket)
    with Workdir(bucket).lock():
        _, err = fae(*run, code=2)
        waits, refused = err.splitlines()
        assert "for a sign of life" in waits and not (bucket / "config.json").exists()
        assert refused.startswith(f"fae: error: working directory {bucket} is in use by process {os.getpid()} on ")
    moments = (
        half_written(bucket / "features" / "checkpoints", 3),
        lambda: any(bucket.glob("latents/*/shard-*.json")),
        half_written(bucket / "generator" / "checkpoints", 6),
    )
    for reached in moments:
        process = start(*run)
        code, err = signal_when(process, reached, signal.SIGKILL)
        assert code == -signal.SIGKILL, err
    fae(*run)
    for stage in TRAINED:
        assert len(curve(bucket, stage)) == STEPS and curve(bucket, stage) == curve(finished, stage)
        assert_same_arrays(saved_state(bucket, stage), saved_state(finished, stage))
    (header,) = finished.glob("latents/*/header.json")
    assert (bucket / str(header.relative_to(finished))).read_bytes() == header.read_bytes()
    assert not (bucket / ".lock").exists()

    draw = ("sample", "--number", 4, "--classes", "0,1")
    for workdir in (bucket, finished):
        fae(*draw, "--workdir", workdir)
    with (bucket / "samples" / "samples" / "samples.npz").open("rb") as file:
        drawn = np.load(file)["arr_0"]
    np.testing.assert_array_equal(drawn, np.load(finished / "samples" / "samples" / "samples.npz")["arr_0"])
    fae("evaluate", "--workdir", bucket, "--task", "generation", "reconstruction")
    assert json.loads((bucket / "evaluation" / "reconstruction.json").read_text())["sets"]["heldout"]
    assert "<html" in (bucket / "report.html").read_text() and (bucket / "evaluation" / "figures").is_dir()
    fae("cache", "--verify", "--workdir", bucket)

    fae("export", "--workdir", bucket, "--format", "bundle", "--out", tmp_path / "bundle")
    fae("export", "--workdir", bucket, "--out", f"{bucket}/bundle")
    here, there = (
        {name: (folder / "bundle" / name).read_bytes() for name in names_below(folder / "bundle")}
        for folder in (tmp_path, bucket)
    )
    assert here == there and "bundle.json" in here
    _, err = fae("export", "--workdir", bucket, "--out", f"{bucket}/bundle", code=2)
    assert "is not empty: name a new folder with --out" in err
    places = (str(bucket), tmp_path / "bundle", str(bucket / "bundle"))
    ours, exported, fetched = (fae_jax.load(place).generate(labels=[3], seed=1) for place in places)
    np.testing.assert_allclose(ours, exported, atol=1e-5)
    np.testing.assert_array_equal(exported, fetched)

    (tmp_path / "sweep.py").write_text(SWEEP)
    sweep = bucket.with_name(f"{bucket.name}-sweep")
    words = ("sweep", "--config", TINY, "--sweep", tmp_path / "sweep.py", "--workdir", sweep, "--from", bucket)
    out, _ = fae(*words, cwd=tmp_path)
    assert "place" in out and out == (sweep / "table.txt").read_text()
    rows = json.loads((sweep / "table.json").read_text())
    assert len(rows["points"]) == 2 and (sweep / "index.html").is_file(), rows
    for point in (sweep / "points").iterdir():
        assert json.loads((point / "outcome.json").read_text())["outcome"] == "done"
        assert curve(point, "features") == curve(finished, "features")
    assert sorted(os.listdir(tmp_path)) == ["bundle", "cache", "runs", "sweep.py"]  # logs are of this machine


@pytest.mark.slow
def test_a_bucket_that_is_not_to_be_had_is_one_line(bucket: Any, bucket_server: Any):
    def refused(code: int, *words: object, **options: Any) -> str:
        out, err = fae(*words, code=code, **options)
        assert out == "" and err.count("\n") == 1, err
        return err

    run = ("run", "--config", TINY, "--workdir")
    assert "bucket gs://no-such-bucket does not exist; make it first" in refused(2, *run, "gs://no-such-bucket/W")
    fsspec.filesystem("gs").pipe_file(f"{bucket}/bundle/bundle.json", b"{}")
    with pytest.raises(ValueError, match=f"{bucket}/bundle/bundle.json cannot be read"):
        fae_jax.load(str(bucket / "bundle"))
    assert "is not a working directory" in refused(2, "sample", "--workdir", bucket)
    assert "s3://b/W cannot be written to: name a folder on this machine, or gs://" in refused(2, *run, "s3://b/W")
    gone = environment(STORAGE_EMULATOR_HOST="http://127.0.0.1:1")
    assert f"gs://{bucket.parts[2]} does not answer" in refused(1, *run, bucket, env=gone)
    bucket_server.answer_all_with(403)
    try:
        for words in ((*run, bucket), ("sweep", "--table", "--workdir", bucket)):
            assert f"gs://{bucket.parts[2]} refuses this account; give it the role" in refused(1, *words)
    finally:
        bucket_server.answer_all_with(200)


@pytest.mark.slow
def test_a_bucket_that_refuses_in_the_middle_ends_the_run_and_the_same_command_continues(
    bucket: Any, bucket_server: Any
):
    run = ("run", "--config", TINY, "--workdir", bucket, "--config.encoder_training.steps=60")
    process = start(*run)
    while not (bucket / "encoder" / "checkpoints" / "6" / "commit_success.txt").exists():
        assert process.poll() is None
        time.sleep(0.05)
    bucket_server.answer_all_with(403)
    try:
        _, err = process.communicate(timeout=200)
    finally:
        bucket_server.answer_all_with(200)
    assert process.returncode == 1 and "Traceback" not in err
    assert "refuses this account" in err.splitlines()[-1]
    fae("train", "encoder", "--workdir", bucket)
    assert [json.loads(row)["step"] for row in curve(bucket, "encoder")] == list(range(1, 61))
