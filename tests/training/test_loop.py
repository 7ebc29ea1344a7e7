"""The loop: interrupted and continued it draws the same curve; what it logs; when it gives up."""

import itertools
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import toy
from running import of_the_machine

from fae_jax.config import check, default_config
from fae_jax.errors import RunFailed, Stopped
from fae_jax.parallel.mesh import make_mesh
from fae_jax.training.loop import Task, train
from fae_jax.training.state import TrainState


def batches(step: int) -> Iterator[dict[str, np.ndarray]]:
    return map(toy.batch, itertools.count(step))


def run(
    directory: Path,
    source: Any = batches,
    every: int = 1,
    profile: tuple[int, ...] = (),
    flops: float | None = None,
    peak: float | None = None,
    preview: Any = None,
    score: Any = None,
    **changes: Any,
) -> TrainState:
    section = toy.section(**changes)
    task = Task(
        name="toy",
        players={"toy": toy.player()},
        frozen={},
        batches=source,
        seed=3,
        section=section,
        preview=preview or (lambda state: (np.full((4, 4, 3), int(state.step), np.uint8), "steps")),
        score=score,
        score_every=3,
        flops=flops,
        peak=peak,
    )
    config = default_config()
    with config.unlocked():
        config.logging.update({"every": every, "tensorboard": False, "preview_every": 0, "profile": profile})
        config.checkpoint.every = 3
    return train(task, directory, make_mesh(), check(config))


def rows(directory: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if not of_the_machine(k)} for row in found]


def assert_same(ours: TrainState, theirs: TrainState) -> None:
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_the_step_has_the_gradients_dtype_of_the_configuration(folder: Any, monkeypatch: pytest.MonkeyPatch):
    def refuse(players: Any, parts: int, seed: int, mesh: Any, gradients: str) -> None:
        raise OSError(f"asked for {gradients}")

    monkeypatch.setattr("fae_jax.training.loop.compile_step", refuse)
    with pytest.raises(OSError, match="asked for float32"):
        run(folder / "refused")


def test_scores_stand_in_the_rows_of_their_steps_and_change_nothing(tmp_path: Path):
    def failing(step: int) -> Iterator[dict[str, np.ndarray]]:
        yield from itertools.islice(batches(step), 5 - step)
        raise OSError("the network share is gone")

    def score(state: TrainState) -> dict[str, float]:
        kernel = state.players["toy"].params["out"]["kernel"]
        return {"scores/step": float(state.step), "scores/sum": float(kernel.sum())}

    without = run(tmp_path / "without", every=2)
    with pytest.raises(OSError, match="share is gone"):
        run(tmp_path / "with", failing, every=2, score=score)
    assert_same(run(tmp_path / "with", every=2, score=score), without)
    scored = {row["step"]: row.pop("scores/step") for row in rows(tmp_path / "with") if "scores/step" in row}
    assert scored == {3: 3.0, 6: 6.0, 8: 8.0}  # the last one too; 3 is not logged otherwise
    plain = {row["step"]: row for row in rows(tmp_path / "without")}
    for row in rows(tmp_path / "with"):
        ours = {name: value for name, value in row.items() if not name.startswith("scores/")}
        assert ours == plain.get(row["step"], ours)
    assert plain.keys() | {3} == {row["step"] for row in rows(tmp_path / "with")}


def test_an_interrupted_run_goes_on_exactly(folder: Any):
    whole = run(folder / "whole")

    def failing(step: int) -> Iterator[dict[str, np.ndarray]]:
        for number in itertools.count(step):
            if number == 5:
                raise OSError("the network share is gone")
            yield toy.batch(number)

    with pytest.raises(OSError, match="share is gone"):
        run(folder / "parts", failing)
    assert [folder.name for folder in (folder / "parts" / "checkpoints").iterdir()] == ["3"]  # written to its end
    assert_same(run(folder / "parts"), whole)
    assert rows(folder / "parts") == rows(folder / "whole")
    assert [row["step"] for row in rows(folder / "whole")] == list(range(1, 9))
    # Done: the state comes back without a step, and no batch is asked for.
    assert_same(run(folder / "whole", lambda step: pytest.fail("a batch was asked for")), whole)


def test_a_signal_saves_the_step_it_came_in_and_the_handlers_go_back(tmp_path: Path):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)

    def signalling(step: int) -> Iterator[dict[str, np.ndarray]]:
        for number in itertools.count(step):
            if number == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            yield toy.batch(number)

    with pytest.raises(Stopped, match="stopped by SIGTERM at step 4 of toy, saved; the same command continues"):
        run(tmp_path / "parts", signalling)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    assert (tmp_path / "parts" / "checkpoints" / "4").is_dir()
    assert_same(run(tmp_path / "parts"), run(tmp_path / "whole"))


@pytest.mark.parametrize("moment", [7, "preview"])
def test_a_signal_in_the_last_step_or_after_it_still_stops_the_run(tmp_path: Path, moment: int | str):
    def signalling(step: int) -> Iterator[dict[str, np.ndarray]]:
        for number in itertools.count(step):
            if number == moment:
                os.kill(os.getpid(), signal.SIGTERM)
            yield toy.batch(number)

    def preview(state: TrainState) -> tuple[np.ndarray, str]:
        if moment == "preview":
            os.kill(os.getpid(), signal.SIGTERM)
        return np.zeros((4, 4, 3), np.uint8), "nothing"

    with pytest.raises(Stopped, match="stopped by SIGTERM at step 8 of toy, saved"):
        run(tmp_path, signalling, preview=preview)
    assert int(run(tmp_path, lambda step: pytest.fail("a batch was asked for")).step) == 8


def poisoned(start: int) -> Iterator[dict[str, np.ndarray]]:
    for number in itertools.count(start):
        batch = toy.batch(number)
        if number >= 2:
            batch["x"][0, 0] = np.nan
        yield batch


def test_too_many_steps_in_a_row_that_are_not_finite_end_the_run(tmp_path: Path):
    with pytest.raises(RunFailed, match=r"toy: 4 steps in a row up to step 6 had a loss or gradient that is not fin"):
        run(tmp_path, poisoned, max_skipped=3, steps=20)
    found = rows(tmp_path)
    assert [row["loss"] is None for row in found[:6]] == [False, False, True, True, True, True]
    assert [row["skipped"] for row in found[:6]] == [0, 0, 1, 2, 3, 4]


def test_a_stage_that_learnt_nothing_is_not_done(tmp_path: Path):
    def empty(start: int) -> Iterator[dict[str, np.ndarray]]:
        for number in itertools.count(start):
            batch = toy.batch(number)
            batch["x"][:] = np.nan
            yield batch

    for _ in range(2):  # nor when the same command is given again
        with pytest.raises(RunFailed, match="toy: none of its 8 steps had a loss and a gradient that are finite"):
            run(tmp_path, empty, max_skipped=100)


def test_as_many_as_allowed_do_not(tmp_path: Path):
    assert int(run(tmp_path, poisoned, max_skipped=6).skipped) == 6


def test_first_and_last_step_are_logged_and_a_preview_is_left_at_the_end(tmp_path: Path):
    run(tmp_path, every=3)
    assert [row["step"] for row in rows(tmp_path)] == [1, 3, 6, 8]
    assert {"loss", "noise", "gradient_norm", "skipped"} <= rows(tmp_path)[0].keys()
    assert [file.name for file in (tmp_path / "previews").glob("*.png")] == ["step_00000008.png"]
    assert sorted(folder.name for folder in (tmp_path / "checkpoints").iterdir()) == ["6", "8"]


def test_rows_say_how_fast_it_is_and_where_the_time_goes(tmp_path: Path):
    run(tmp_path, flops=3e9, peak=1e12)
    row = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    steps_per_second = row["images_per_second"] / 12
    assert row["teraflops_per_second"] == pytest.approx(steps_per_second * 3e-3)
    assert row["mfu"] == pytest.approx(steps_per_second * 3e-3)  # 3 GFLOP a step, 1 TFLOP/s at the most
    assert row["seconds_compile"] > row["seconds_step"] > 0 and row["seconds_checkpoint"] > 0
    assert row["seconds"] == pytest.approx(sum(v for name, v in row.items() if name.startswith("seconds_")))


def test_without_a_peak_there_is_no_mfu_and_without_a_count_no_teraflops(tmp_path: Path):
    run(tmp_path / "counted", flops=3e9, steps=1)
    run(tmp_path / "not", steps=1)
    counted, neither = (json.loads((tmp_path / name / "metrics.jsonl").read_text()) for name in ("counted", "not"))
    assert "mfu" not in counted and "teraflops_per_second" in counted
    assert not {"mfu", "teraflops_per_second"} & neither.keys()


def test_chosen_steps_are_traced_and_the_curve_does_not_notice(folder: Any):
    run(folder / "traced", profile=(3, 4), steps=5)
    run(folder / "not", profile=(), steps=5)
    assert any((folder / "traced" / "profile").glob("plugins/profile/*/*.xplane.pb"))
    assert not (folder / "not" / "profile").exists()
    assert rows(folder / "traced") == rows(folder / "not")


def test_the_inputs_of_the_step_that_ends_a_run_are_kept(tmp_path: Path):
    with pytest.raises(RunFailed, match="nonfinite/4.npz"):
        run(tmp_path, poisoned, max_skipped=1, steps=20)
    with np.load(tmp_path / "nonfinite" / "4.npz") as archive:
        kept = dict(archive)
    np.testing.assert_array_equal(kept["batch/x"], next(poisoned(3))["x"])
    assert (int(kept["step"]), int(kept["seed"])) == (3, 3)
