"""The promise that matters most: killed anywhere and run again, a run is the same to the bit."""

import json
import random
import re
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from running import (
    TINY,
    TRAINED,
    assert_same_arrays,
    curve,
    fae,
    killed,
    lines,
    record,
    saved_state,
    signal_when,
    start,
)
from tiny import STEPS

from fae_jax.training.monitoring import read_metrics

STAGES = ("encoder", "features", "pixels", "finetune", "cache", "generator")
OUT = 30  # seconds from SIGTERM until the process is gone


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
        assert record(workdir, stage) == record(finished, stage), stage
        assert_same_arrays(saved_state(workdir, stage), saved_state(finished, stage))
    for pattern in (
        "latents/*/*.array_record",
        "latents/*/header.json",
        "encoder/model.safetensors",
    ):
        ours, theirs = ({p.relative_to(w): p.read_bytes() for p in w.glob(pattern)} for w in (workdir, finished))
        assert ours == theirs and ours, pattern


KILLS = {"encoder": 5, "features": 5, "pixels": 5, "finetune": 5, "cache": 4, "generator": 7}
COMMANDS = {
    "sample": ("sample", "--number", 8),
    "evaluate": ("evaluate", "--task", "generation", "reconstruction"),
    "export": ("export", "--format", "bundle", "--out"),
}
EACH = 3  # kills of each command; forty in all


def has_begun(workdir: Path, told: Path, stage: str, since: float) -> bool:
    """Whether the process begun at `since` is in a stage."""
    if stage == "cache":
        return any(file.stat().st_mtime > since for file in workdir.glob("latents/*/writer-0.lock"))
    return f"{stage}: step" in told.read_text()


def command(name: str, workdir: Path) -> tuple[object, ...]:
    place = (workdir.with_name(f"{workdir.name}-bundle"),) if name == "export" else ()
    return (*COMMANDS[name], *place, "--workdir", workdir)


def results(workdir: Path) -> dict[str, bytes]:
    """What sampling, evaluation and export leave."""
    with np.load(workdir / "samples" / "samples" / "samples.npz") as drawn:
        kept = {f"samples {name}": drawn[name].tobytes() for name in drawn.files}
    for path in workdir.glob("evaluation/*.json"):
        score = json.loads(path.read_text())
        score["origin"].pop("seconds")
        kept[path.name] = json.dumps(score).encode()
    bundle = workdir.with_name(f"{workdir.name}-bundle")
    return kept | {path.name: path.read_bytes() for path in bundle.rglob("*") if path.is_file()}


@pytest.mark.slow(seconds=270)
def test_killed_at_forty_random_moments_all_comes_out_the_same(finished: Path, tmp_path: Path):
    seed = time.time_ns() % 10**6
    rng, workdir, told, landed = random.Random(seed), tmp_path / "killed", tmp_path / "told", []
    for stage, number in KILLS.items():
        while landed.count(stage) < number:
            since, after, delay = time.time(), rng.randrange(STEPS), rng.uniform(0.0, 0.2)

            def reached(stage: str = stage, since: float = since, after: int = after, delay: float = delay) -> bool:
                if not has_begun(workdir, told, stage, since):
                    return False
                return (stage == "cache" or progress(workdir, stage) >= after) and not time.sleep(delay)

            with open(told, "w") as file:
                process = start("run", "--config", TINY, "--workdir", workdir, stderr=file)
                signal_when(process, reached, signal.SIGKILL)
            if is_done(workdir, stage):  # the kill came too late, and those before it have left no trace
                forget(workdir, stage)
                landed = [name for name in landed if name != stage]
                continue
            assert process.returncode == -signal.SIGKILL
            landed.append(stage)
            if stage != "cache" and (workdir / stage / "metrics.jsonl").is_file():
                ours = read_metrics(workdir / stage / "metrics.jsonl")
                assert [row["loss"] for row in ours] == losses(finished, stage)[: len(ours)]
    fae("run", "--config", TINY, "--workdir", workdir)
    assert_same_run(workdir, finished)

    whole = tmp_path / "whole"
    shutil.copytree(finished, whole)
    for name in COMMANDS:
        begun = time.monotonic()
        fae(*command(name, whole))
        length = time.monotonic() - begun
        while landed.count(name) < EACH:
            due = time.monotonic() + rng.uniform(0.3, 0.9) * length
            code, err = signal_when(
                start(*command(name, workdir)), lambda due=due: time.monotonic() >= due, signal.SIGKILL
            )
            assert code in (0, -signal.SIGKILL), err
            landed += [name] * (code != 0)
        fae(*command(name, workdir))
    print(f"seed {seed}, {len(landed)} kills: {landed}")
    assert len(landed) == 40
    ours, theirs = results(workdir), results(whole)
    assert ours.keys() == theirs.keys()
    assert not [name for name in ours if ours[name] != theirs[name]]


def losses(workdir: Path, stage: str) -> list[float]:
    return [row["loss"] for row in read_metrics(workdir / stage / "metrics.jsonl")]


def begun(finished: Path, workdir: Path) -> Path:
    """A working directory in which the encoder is done and nothing else."""
    workdir.mkdir()
    shutil.copy(finished / "config.json", workdir)
    shutil.copytree(finished / "encoder", workdir / "encoder")
    return workdir


@pytest.mark.parametrize("number", [pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGINT])
def test_asked_to_stop_it_saves_says_so_and_goes_on(finished: Path, tmp_path: Path, number: signal.Signals):
    workdir = begun(finished, tmp_path / "stopped")
    process, asked = start("train", "features", "--workdir", workdir), []
    code, err = signal_when(
        process, lambda: progress(workdir, "features") >= 1 and not asked.append(time.monotonic()), number
    )
    print(f"{number.name}: saved and out after {time.monotonic() - asked[0]:.1f} s")
    assert time.monotonic() - asked[0] <= OUT
    last = err.splitlines()[-1]
    stopped = re.fullmatch(
        rf"fae: failed: stopped by {number.name} at step (\d+) of features, saved; the same command continues", last
    )
    assert code == 1 and stopped and "Traceback" not in err, err
    assert (workdir / "features" / "checkpoints" / stopped[1]).is_dir()
    fae("train", "features", "--workdir", workdir)
    assert curve(workdir, "features") == curve(finished, "features")
    assert_same_arrays(saved_state(workdir, "features"), saved_state(finished, "features"))


def test_before_the_first_step_it_ends_at_once_and_goes_on(finished: Path, tmp_path: Path):
    workdir = begun(finished, tmp_path / "stopped")
    process, asked = start("train", "features", "--workdir", workdir), []
    code, err = signal_when(
        process, lambda: (workdir / ".lock").exists() and not asked.append(time.monotonic()), signal.SIGTERM
    )
    print(f"SIGTERM before the first step: out after {time.monotonic() - asked[0]:.1f} s")
    assert time.monotonic() - asked[0] <= OUT
    assert code == 1 and "Traceback" not in err, err
    last = err.splitlines()[-1]
    assert last == "fae: failed: stopped by SIGTERM; what was finished is kept, and the same command continues"
    assert progress(workdir, "features") == 0
    fae("train", "features", "--workdir", workdir)
    assert curve(workdir, "features") == curve(finished, "features")


def test_time_is_counted_over_restarts_and_by_phase(finished: Path):
    times = json.loads((finished / "timings.json").read_text())
    assert set(STAGES) <= set(times) and all(times[stage] > 0 for stage in STAGES)
    phases = dict(times["training"])
    share = phases.pop("goodput")
    assert set(phases) == {"start", "compile", "data", "step", "checkpoint", "evaluation"}
    assert 0 < share < 1 and share == pytest.approx(phases["step"] / sum(phases.values()), abs=1e-3)
    assert sum(phases.values()) <= sum(times[stage] for stage in STAGES)
    row = read_metrics(finished / "generator" / "metrics.jsonl")[-1]
    assert row["seconds"] == pytest.approx(sum(row[f"seconds_{name}"] for name in phases))
    assert row["goodput"] == pytest.approx(row["seconds_step"] / row["seconds"])


ADVERSARIAL = (
    "--config.pixels.steps=28",
    "--config.pixels.batch=2",
    "--config.checkpoint.every=1",
    '--config.pixels.losses=(("l1",1.0),("gan",0.5,9))',
    "--config.pixel_losses.gan.adaptive=True",
    "--config.pixel_losses.gan.lecam=0.01",
    "--config.pixel_losses.gan.channels=32",
    "--config.pixel_losses.gan.stages=1",
    "--config.pixel_losses.gan.start=5",
    "--config.pixel_losses.gan.ema=(0.9,)",
)


@pytest.mark.slow(seconds=110)
def test_a_decoder_and_its_discriminator_killed_ten_times_come_out_the_same(finished: Path, tmp_path: Path):
    """Both players, what losses remember, and their schedules; killed at a random moment of every tenth of the way,
    while one player trains and while both do."""
    seed = time.time_ns() % 10**6
    rng, landed = random.Random(seed), []
    for name in ("whole", "killed"):
        shutil.copytree(finished / "encoder", tmp_path / name / "encoder")
    train = ("train", "pixels", "--config", TINY, *ADVERSARIAL, "--workdir")
    fae(*train, tmp_path / "whole")
    rows = tmp_path / "killed" / "pixels" / "metrics.jsonl"
    for tenth in range(10):
        due = {"least": rng.randint(2 * tenth + 1, 2 * tenth + 2), "delay": rng.uniform(0.0, 0.05)}
        assert killed(*train, tmp_path / "killed", rows=rows, **due) == -signal.SIGKILL
        landed.append(due)
    fae(*train, tmp_path / "killed")
    print(f"seed {seed}, killed at {landed}")
    assert curve(tmp_path / "killed", "pixels") == curve(tmp_path / "whole", "pixels")
    ours, theirs = saved_state(tmp_path / "killed", "pixels"), saved_state(tmp_path / "whole", "pixels")
    assert_same_arrays(ours, theirs)
    for remembered in ("['gan']['memory']['real']", "['pixel_decoder']['memory']['gan']"):
        assert any(path.endswith(remembered) for path in ours), list(ours)
    last = read_metrics(tmp_path / "killed" / "pixels" / "metrics.jsonl")[-1]
    assert last["step"] == 28 and last["gan_weight"] > 0 and last["gan/loss"] > 0
