"""The promise that matters most: killed anywhere and run again, a run is the same to the bit."""

import functools
import json
import random
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
from running import TINY, TRAINED, assert_same_arrays, curve, fae, lines, saved_state, signal_when, start
from tiny import STEPS

STAGES = ("encoder", "features", "pixels", "finetune", "cache", "generator")
KILLS = {"generator": 2}  # kills in one stage, where more than one


def progress(workdir: Path, stage: str) -> int:
    """Steps, or shards of the cache, that have been finished."""
    if stage == "cache":
        return len(list(workdir.glob("latents/*/shard-*.json")))
    return lines(workdir / stage / "metrics.jsonl")


def is_done(workdir: Path, stage: str) -> bool:
    if stage == "cache":
        return any(workdir.glob("latents/*/header.json"))
    return (workdir / stage / "checkpoints" / str(STEPS)).is_dir()


def forget(workdir: Path, stage: str) -> None:
    """The stage and what came after it."""
    for name in STAGES[STAGES.index(stage) :]:
        shutil.rmtree(workdir / ("latents" if name == "cache" else name), ignore_errors=True)


def assert_same_run(workdir: Path, finished: Path) -> None:
    for stage in TRAINED:
        assert len(curve(finished, stage)) == STEPS
        assert curve(workdir, stage) == curve(finished, stage), stage
        assert_same_arrays(saved_state(workdir, stage), saved_state(finished, stage))
    for pattern in (
        "latents/*/*.array_record",
        "latents/*/header.json",
        "encoder/model.safetensors",
        "features/*.json",
    ):
        ours, theirs = ({p.relative_to(w): p.read_bytes() for p in w.glob(pattern)} for w in (workdir, finished))
        assert ours == theirs and ours, pattern


def test_killed_in_every_stage_the_run_is_bitwise_the_run_that_was_not(finished: Path, tmp_path: Path):
    seed = time.time_ns() % 10**6
    rng, workdir, landed = random.Random(seed), tmp_path / "killed", []
    for stage in STAGES:
        while landed.count(stage) < KILLS.get(stage, 1):
            # How far: a later step than any seen before where it is killed twice; a shard of the cache.
            so_far = min(progress(workdir, stage), STEPS - 4) if stage in landed else 0
            wanted = so_far + rng.randint(1, 3)
            process = start("run", "--config", TINY, "--workdir", workdir)
            reached = functools.partial(lambda stage, wanted: progress(workdir, stage) >= wanted, stage, wanted)
            code, _ = signal_when(process, reached, signal.SIGKILL)
            if is_done(workdir, stage):  # the kill came too late
                forget(workdir, stage)
                landed = [name for name in landed if name != stage]
            else:
                assert code == -signal.SIGKILL
                landed.append(stage)
    fae("run", "--config", TINY, "--workdir", workdir)
    assert set(landed) == set(STAGES)
    print(f"seed {seed}, killed in {landed}")
    assert_same_run(workdir, finished)


def begun(finished: Path, workdir: Path) -> Path:
    """A working directory in which the encoder is done and nothing else."""
    workdir.mkdir()
    shutil.copy(finished / "config.json", workdir)
    shutil.copytree(finished / "encoder", workdir / "encoder")
    return workdir


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_it_saves_says_so_and_goes_on(finished: Path, tmp_path: Path, number: signal.Signals):
    workdir = begun(finished, tmp_path / "stopped")
    process = start("train", "features", "--workdir", workdir)
    code, err = signal_when(process, lambda: progress(workdir, "features") >= 1, number)
    last = err.splitlines()[-1]
    stopped = re.fullmatch(
        rf"fae: failed: stopped by {number.name} at step (\d+) of features, saved; the same command continues", last
    )
    assert code == 1 and stopped and "Traceback" not in err, err
    assert (workdir / "features" / "checkpoints" / stopped[1]).is_dir()
    fae("train", "features", "--workdir", workdir)
    assert curve(workdir, "features") == curve(finished, "features")
    assert_same_arrays(saved_state(workdir, "features"), saved_state(finished, "features"))


def test_time_is_counted_over_restarts(finished: Path):
    times = json.loads((finished / "timings.json").read_text())
    assert set(STAGES) <= set(times) and all(times[stage] > 0 for stage in STAGES)
