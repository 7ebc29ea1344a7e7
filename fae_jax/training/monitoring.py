"""What a run tells while it runs: `metrics.jsonl`, TensorBoard, previews, and one line of progress."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tensorboardX import SummaryWriter
from tqdm import tqdm


def read_metrics(file: Path) -> list[dict[str, Any]]:
    """The rows of a `metrics.jsonl`; a last line cut short by a kill is left out."""
    rows = []
    if file.is_file():
        for line in file.read_text().splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
    return rows


class MetricsLog:
    """Rows of scalars by step, continued exactly at a restart: rows after the restored step are dropped.

    Args:
      directory: of the stage.
      step: the step the run continues from.
      tensorboard: also write event files.
    """

    def __init__(self, directory: Path, step: int, tensorboard: bool):
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / "metrics.jsonl"
        kept = [row for row in read_metrics(path) if row["step"] <= step]
        temporary = path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(row) + "\n" for row in kept))
        os.replace(temporary, path)
        self.seconds = float(kept[-1]["seconds"]) if kept else 0.0
        self._file = open(path, "a")  # noqa: SIM115 -- closed by close()
        self._board = SummaryWriter(str(directory / "tensorboard"), purge_step=step) if tensorboard else None
        self._directory = directory

    def write(self, step: int, values: dict[str, float]) -> None:
        """One row; values that are not finite are written as null, which JSON can hold."""
        clean = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._file.write(json.dumps({"step": step, **clean}) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def picture(self, step: int, image: np.ndarray, caption: str) -> None:
        """A preview, uint8 (y, x, 3), as PNG and in TensorBoard."""
        folder = self._directory / "previews"
        folder.mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / f"step_{step:08d}.png")
        (folder / "README.json").write_text(json.dumps({"caption": caption}))
        if self._board is not None:
            self._board.add_image("preview", image, step, dataformats="HWC")

    def close(self) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()


class Progress:
    """A bar on a terminal; elsewhere a plain line every `interval` seconds, with rate and time to go."""

    def __init__(self, name: str, start: int, steps: int, batch: int, interval: float = 15.0):
        self._name, self._start, self._steps, self._batch, self._interval = name, start, steps, batch, interval
        self._begun = self._last = time.monotonic()
        terminal = sys.stderr.isatty()
        self._bar = tqdm(total=steps, initial=start, desc=name, unit="step", dynamic_ncols=True) if terminal else None
        self._loss = math.nan
        self._step = start
        if not terminal:
            print(f"{name}: step {start} of {steps}", file=sys.stderr, flush=True)

    def update(self, step: int, loss: float | None = None) -> None:
        if loss is not None:
            self._loss = loss
        if self._bar is not None:
            self._bar.update(step - self._step)
            if loss is not None:
                self._bar.set_postfix(loss=f"{loss:.4f}")
        elif time.monotonic() - self._last > self._interval:
            self._last = time.monotonic()
            rate = (step - self._start) / (self._last - self._begun)
            left = (self._steps - step) / rate if rate else math.inf
            print(
                f"{self._name}: step {step} of {self._steps}, loss {self._loss:.4f}, "
                f"{rate * self._batch:.0f} images/s, {_duration(left)} to go",
                file=sys.stderr,
                flush=True,
            )
        self._step = step

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        else:
            spent = time.monotonic() - self._begun
            print(f"{self._name}: {self._step} steps, {spent:.1f} s", file=sys.stderr, flush=True)


def _duration(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "unknown time"
    hours, rest = divmod(int(seconds), 3600)
    return (
        f"{hours} h {rest // 60} min" if hours else f"{rest // 60} min {rest % 60} s" if rest >= 60 else f"{rest} s"
    )
