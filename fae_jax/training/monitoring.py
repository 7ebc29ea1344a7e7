"""What a run tells while it runs: `metrics.jsonl`, previews, boards, and one line of progress.

Of a run's hosts the first one tells; the others keep quiet. Names in a row: `loss` and what the losses report (led by
`PLAYER/` where there are several players), `gradient_norm`, `skipped`, `skipped_in_a_row`; `images_per_second`, and
where they are known `teraflops_per_second` and `mfu`; `seconds`, `seconds_PHASE` and `goodput` (`goodput.py`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import sys
import time
from typing import Any, ClassVar

import numpy as np
from PIL import Image
from tqdm import tqdm

from fae_jax.files.paths import Path
from fae_jax.files.progress import duration, say
from fae_jax.files.writing import GrowingFile, write_file, write_json
from fae_jax.section import at_least, option, whole_numbers
from fae_jax.training.boards import Boards


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoggingSection:
    """What a run tells while it runs."""

    operational: ClassVar[bool] = True
    every: int = option(100, "steps between lines of metrics", at_least(1))
    preview_every: int = option(
        10_000, "steps between preview images; 0 = only at the end, and none of a generator", at_least(0)
    )
    tensorboard: bool = option(True, "write event files beside metrics.jsonl")
    wandb: str = option("", "project at Weights & Biases to show the run in; empty = none")
    profile: tuple[Any, ...] = option(
        (), "steps (first, last) to trace into profile/; empty = none", whole_numbers(1)
    )

    def check(self) -> None:
        if self.profile and (len(self.profile) != 2 or self.profile[0] > self.profile[1]):
            raise ValueError(f"profile={self.profile} must be the first and the last step to trace, or ()")


def read_metrics(file: Path) -> list[dict[str, Any]]:
    """The rows of a `metrics.jsonl`; a line cut short by a kill is left out, and any other that is no row named."""
    rows = []
    lines = file.read_bytes().splitlines() if file.is_file() else []
    for number, line in enumerate(lines, 1):
        row = None
        with contextlib.suppress(ValueError, RecursionError):
            row = json.loads(line)
        if isinstance(row, dict) and type(row.get("step")) is int:
            rows.append(row)
        elif number < len(lines):
            say(f"warning: line {number} of {file} is no row of metrics and is left out")
    return rows


class MetricsLog:
    """Rows of scalars by step, continued exactly at a restart: rows after the restored step are dropped.

    Args:
      directory: of the stage.
      step: the step the run continues from.
      logging: that section of the configuration.
      writes: False on hosts that keep quiet.
    """

    def __init__(self, directory: Path, step: int, logging: LoggingSection, writes: bool = True):
        path = directory / "metrics.jsonl"
        kept = [row for row in read_metrics(path) if row["step"] <= step]
        self.last: dict[str, Any] = kept[-1] if kept else {}
        self._directory, self._writes = directory, writes
        if not writes:
            return
        self._file = GrowingFile(path, map(json.dumps, kept))
        self._boards = Boards(directory, step, logging)

    def write(self, step: int, values: dict[str, float]) -> None:
        """One row; values that are not finite are written as null, which JSON can hold."""
        if not self._writes:
            return
        clean = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._file.add(json.dumps({"step": step, **clean}))
        self._boards.scalars(step, values)

    def image(self, step: int, image: np.ndarray, caption: str) -> None:
        """A preview, uint8 (y, x, 3), as PNG and on the boards."""
        if not self._writes:
            return
        folder = self._directory / "previews"
        write_file(folder / f"step_{step:08d}.png", lambda file: Image.fromarray(image).save(file, "PNG"))
        write_json(folder / "README.json", {"caption": caption})
        self._boards.image(step, image, caption)

    def flush(self) -> None:
        """Returns when all rows are where they belong; before a checkpoint, so that a kill loses none that it has."""
        if self._writes:
            self._file.flush()
            self._boards.flush()

    def close(self) -> None:
        if self._writes:
            with contextlib.suppress(OSError):  # what is left is a row that could not be written
                self._file.close()
            self._boards.close()


class Progress:
    """A bar on a terminal; elsewhere a plain line every `interval` seconds, with rate and time to go.

    Args:
      name: of the stage.
      start, steps: the step it continues from, and the last one.
      batch: examples a step.
      interval: seconds between plain lines.
      speaks: False on hosts that keep quiet.

    The clock of rate and time to go starts after the first step, which compiles.
    """

    def __init__(self, name: str, start: int, steps: int, batch: int, interval: float = 15.0, speaks: bool = True):
        self._name, self._steps, self._batch, self._interval = name, steps, batch, interval
        self._begun = self._last = time.monotonic()
        self._first: tuple[float, int] | None = None  # when the first step was there, and its number
        self._speaks = speaks
        terminal = speaks and sys.stderr.isatty()
        self._bar = tqdm(total=steps, initial=start, desc=name, unit="step", dynamic_ncols=True) if terminal else None
        self._loss = math.nan
        self._step = start
        if speaks and not terminal:
            say(f"{name}: step {start} of {steps}")

    def update(self, step: int, loss: float | None = None) -> None:
        if loss is not None:
            self._loss = loss
        now = time.monotonic()
        if self._first is None:
            self._first = (now, step)
            if self._bar is not None:
                self._bar.unpause()
        if self._bar is not None:
            self._bar.update(step - self._step)
            if loss is not None:
                self._bar.set_postfix(loss=f"{loss:.4f}")
        elif self._speaks and now - self._last > self._interval:
            self._last = now
            rate = (step - self._first[1]) / max(now - self._first[0], 1e-9)
            left = duration((self._steps - step) / rate) if rate else "unknown time"
            say(
                f"{self._name}: step {step} of {self._steps}, loss {self._loss:.4f}, "
                f"{rate * self._batch:.0f} images/s, {left} to go"
            )
        self._step = step

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._speaks:
            spent = time.monotonic() - self._begun
            say(f"{self._name}: {self._step} steps, {spent:.1f} s")
