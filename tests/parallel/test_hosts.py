"""Two and four real processes: one curve, one that dies ends all, a notice to one stops all at one step."""

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from running import ROOT, TINY, TRAINED, curve, environment, lines
from tiny import STEPS

from fae_jax.evaluation import during
from fae_jax.stages import generator
from fae_jax.stages.experiment import Experiment
from fae_jax.training.optimizer import AverageState
from fae_jax.training.state import PlayerState, TrainState
from fae_jax.workdir import Workdir

MEANWHILE = (
    *(f"--config.evaluation.during.{field}" for field in ("every=3", "samples=11", "steps=4")),
    f"--config.logging.preview_every={STEPS}",
)
BOUND = 60  # seconds in which every host ends after one has died


def start_hosts(count: int, *words: object, folder: Path) -> list[subprocess.Popen]:
    """`fae WORDS` as that many hosts; what host i says is in folder/host-i."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder.mkdir(exist_ok=True)
    processes = []
    for number in range(count):
        by_hand = {"FAE_COORDINATOR": f"127.0.0.1:{port}", "FAE_HOSTS": str(count), "FAE_HOST": str(number)}
        with open(folder / f"host-{number}", "w") as file:
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "fae_jax", *map(str, words)],
                    cwd=ROOT,
                    env=environment(**by_hand),
                    stdout=file,
                    stderr=subprocess.STDOUT,
                )
            )
    return processes


def output(folder: Path, number: int) -> list[str]:
    return [line for line in (folder / f"host-{number}").read_text().splitlines() if "[Gloo]" not in line]


def wait(processes: list[subprocess.Popen], folder: Path, limit: float = 200.0) -> list[int]:
    """Exit codes; none may hang."""
    deadline = time.monotonic() + limit
    try:
        return [process.wait(timeout=max(deadline - time.monotonic(), 0.1)) for process in processes]
    finally:
        for process in processes:
            process.kill()


def until(reached: Callable[[], bool], processes: list[subprocess.Popen], limit: float = 200.0) -> None:
    deadline = time.monotonic() + limit
    while not reached():
        assert time.monotonic() < deadline and all(process.poll() is None for process in processes)
        time.sleep(0.01)


def losses(workdir: Any, stage: str) -> np.ndarray:
    return np.array([json.loads(row)["loss"] for row in curve(workdir, stage)])


@pytest.mark.slow(seconds=80)
def test_two_hosts_run_every_stage_on_the_curve_of_one(
    finished: Path, tmp_path: Path, folder: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    words = ("run", "--config", TINY, "--workdir", folder / "two", *MEANWHILE)
    processes = start_hosts(2, *words, folder=tmp_path / "output")
    codes = wait(processes, tmp_path / "output")
    assert codes == [0, 0], output(tmp_path / "output", 0) + output(tmp_path / "output", 1)
    for stage in TRAINED:
        # Sums of gradients are rounded in another order; with the learning rate of 1e-2 that grows from step to step.
        np.testing.assert_allclose(losses(folder / "two", stage), losses(finished, stage), rtol=1e-4, err_msg=stage)
    ours, theirs = (
        json.loads(next(workdir.glob("latents/*/header.json")).read_text())["images"]
        for workdir in (folder / "two", finished)
    )
    assert ours == theirs
    assert any("2 hosts, 2 devices" in line for line in output(tmp_path / "output", 0))
    assert [line for line in output(tmp_path / "output", 1) if "step" in line] == []  # one host tells
    if folder == tmp_path:  # in a bucket it was scored too
        check_meanwhile(folder / "two")


def check_meanwhile(workdir: Any) -> None:
    """What two hosts scored and drew of a generator at its last step is what one host does."""
    experiment = Experiment(Workdir(workdir).read_config(), Workdir(workdir))
    own = PlayerState(params=experiment.parts.params("generator"), optimizer=(AverageState({}),))
    state = TrainState(step=STEPS, skipped=0, skipped_in_a_row=0, players={"generator": own})
    rows = [json.loads(row) for row in curve(workdir, "generator")]
    told = {row["step"]: {name: row[name] for name in row if name.startswith("scores/")} for row in rows}
    assert [step for step in told if told[step]] == [3, 6, STEPS]
    assert told[STEPS] == pytest.approx(during.During(experiment)(state), rel=1e-6) and told[STEPS] != told[6]
    drawn, _ = generator.preview(experiment.parts, {}, {})(state)
    with (workdir / "generator" / "previews" / f"step_{STEPS:08d}.png").open("rb") as file:
        np.testing.assert_array_equal(np.asarray(Image.open(file)), drawn)


def begin_features(finished: Path, workdir: Path, count: int, steps: int = 100_000) -> list[subprocess.Popen]:
    """`features` of that many steps on that many hosts, the encoder done."""
    workdir.mkdir()
    shutil.copytree(finished / "encoder", workdir / "encoder")
    words = ("--config", TINY, "--workdir", workdir, f"--config.features.steps={steps}")
    return start_hosts(count, "train", "features", *words, folder=workdir / "output")


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_several_hosts_train_the_curve_of_one(finished: Path, tmp_path: Path, count: int):
    processes = begin_features(finished, tmp_path / "several", count, steps=STEPS)
    assert wait(processes, tmp_path / "several" / "output") == [0] * count
    ours = losses(tmp_path / "several", "features")
    np.testing.assert_allclose(ours, losses(finished, "features"), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("count", "victim"), [(2, 0), (4, 2)])
def test_a_host_that_is_killed_ends_all_with_its_name(finished: Path, tmp_path: Path, count: int, victim: int):
    workdir = tmp_path / "killed"
    processes = begin_features(finished, workdir, count)
    until(lambda: lines(workdir / "features" / "metrics.jsonl") >= 5, processes)
    begun = time.monotonic()
    processes[victim].send_signal(signal.SIGKILL)
    codes = wait(processes, workdir / "output", BOUND)
    print(f"{count} hosts, {victim} killed: all had ended after {time.monotonic() - begun:.1f} s")
    assert codes == [-signal.SIGKILL if number == victim else 1 for number in range(count)]
    for number in set(range(count)) - {victim}:
        failed = [line for line in output(workdir / "output", number) if line.startswith("fae: ")]
        name = re.escape(f"host {victim} of {count} ({socket.gethostname()})")
        assert len(failed) == 1 and re.match(f"fae: failed: {name} is gone: .* the same command continues", failed[0])
        assert "Traceback" not in "\n".join(output(workdir / "output", number))


@pytest.mark.slow
def test_a_notice_to_one_host_saves_one_step_on_all(finished: Path, tmp_path: Path):
    workdir = tmp_path / "stopped"
    processes = begin_features(finished, workdir, 2)
    until(lambda: lines(workdir / "features" / "metrics.jsonl") >= 5, processes)
    processes[1].send_signal(signal.SIGTERM)
    assert wait(processes, workdir / "output", 60) == [1, 1]
    told = [output(workdir / "output", number)[-1] for number in range(2)]
    steps = {re.search(r"failed: stopped by SIGTERM at step (\d+) of features, saved", line)[1] for line in told}
    assert len(steps) == 1 and (workdir / "features" / "checkpoints" / steps.pop()).is_dir()
