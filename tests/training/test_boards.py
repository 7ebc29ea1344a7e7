"""Boards show what is logged, and never stop a run."""

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fae_jax.training.boards import check_boards
from fae_jax.training.monitoring import LoggingSection, MetricsLog, read_metrics


def logging(**changes: Any) -> LoggingSection:
    return LoggingSection(**{"tensorboard": False, **changes})


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A stand-in for the package, as far as it is used; `calls` holds what came."""
    module = types.ModuleType("wandb")
    module.calls, module.broken = [], False

    class Run:
        def log(self, values: dict[str, Any], step: int) -> None:
            if module.broken:
                raise ConnectionError("no route to host")
            module.calls.append(("log", step, values))

        def finish(self) -> None:
            module.calls.append(("finish",))

    def init(**options: Any) -> Run:
        module.calls.append(("init", options))
        return Run()

    module.init = init
    module.Image = lambda image, caption: (image.shape, caption)
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def test_rows_and_previews_reach_wandb_in_one_run_per_stage(wandb: types.ModuleType, tmp_path: Path):
    directory = tmp_path / "w" / "features"
    for step in (1, 2):  # the second is a restart
        log = MetricsLog(directory, step - 1, logging(wandb="fae"))
        log.write(step, {"loss": 0.5})
        log.image(step, np.zeros((4, 6, 3), np.uint8), "what")
        log.close()
    inits = [call[1] for call in wandb.calls if call[0] == "init"]
    assert inits[0] == inits[1] and inits[0]["resume"] == "allow"
    assert (inits[0]["project"], inits[0]["name"], len(inits[0]["id"])) == ("fae", "w/features", 16)
    assert ("log", 1, {"loss": 0.5}) in wandb.calls and ("log", 2, {"preview": ((4, 6, 3), "what")}) in wandb.calls
    assert wandb.calls.count(("finish",)) == 2


def test_a_board_that_fails_says_so_once_and_the_rows_go_on(
    wandb: types.ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    log = MetricsLog(tmp_path, 0, logging(wandb="fae", tensorboard=True))
    wandb.broken = True
    for step in (1, 2, 3):
        log.write(step, {"loss": float(step)})
    log.close()
    said = capsys.readouterr().err.splitlines()
    assert said == ["warning: WeightsAndBiases shows nothing more of this run: no route to host"]
    assert [row["loss"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1.0, 2.0, 3.0]
    assert any(file.stat().st_size for file in (tmp_path / "tensorboard").iterdir())


def test_wandb_is_required_only_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    check_boards(logging())
    with pytest.raises(
        ValueError, match=r"logging.wandb='fae' needs the package wandb: pip install 'fae_jax\[wandb\]'"
    ):
        check_boards(logging(wandb="fae"))


def test_a_host_that_keeps_quiet_leaves_nothing(wandb: types.ModuleType, tmp_path: Path):
    log = MetricsLog(tmp_path / "features", 0, logging(wandb="fae", tensorboard=True), writes=False)
    log.write(1, {"loss": 0.5})
    log.image(1, np.zeros((4, 6, 3), np.uint8), "what")
    log.close()
    assert wandb.calls == [] and list(tmp_path.iterdir()) == []
