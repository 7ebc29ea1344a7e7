"""Sweep directories with made-up results: no training, only the files that training leaves."""

import json
from pathlib import Path
from typing import Any

from tiny import get_config

from fae_jax.sweeps.declaration import Sweep
from fae_jax.sweeps.directory import SweepDirectory


def begun(root: Path, **declared: Any) -> SweepDirectory:
    """A directory of the tiny experiment's sweep, begun."""
    directory = SweepDirectory(root=root, sweep=Sweep(**declared), config=get_config())
    directory.begin()
    return directory


def leave_metrics(directory: SweepDirectory, number: int, stage: str, **curves: list[float | None]) -> None:
    """A metrics.jsonl with one row per step from step 1."""
    rows = [
        json.dumps({"step": step + 1, **dict(zip(curves, values, strict=True))})
        for step, values in enumerate(zip(*curves.values(), strict=True))
    ]
    file = directory.points[number].workdir.stage(stage) / "metrics.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(rows) + "\n")


def leave_evaluation(directory: SweepDirectory, number: int, task: str, content: dict[str, Any]) -> None:
    folder = directory.points[number].workdir.evaluation
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{task}.json").write_text(json.dumps(content))
