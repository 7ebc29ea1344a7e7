"""What a run leaves and says while it runs."""

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fae_jax.training.monitoring import LoggingSection, MetricsLog, Progress, read_metrics


def logging(**changes: Any) -> LoggingSection:
    return LoggingSection(**{"tensorboard": False, **changes})


def test_rows_after_the_restored_step_are_dropped_and_time_goes_on(tmp_path: Path):
    log = MetricsLog(tmp_path, 0, logging())
    for step in range(1, 6):
        log.write(step, {"loss": 1.0 / step, "seconds": float(step)})
    log.close()
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 6, "lo')  # a kill in the middle of a line
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4, 5]
    continued = MetricsLog(tmp_path, 3, logging())
    assert continued.last["seconds"] == 3.0
    continued.write(4, {"loss": 0.25, "seconds": 3.5})
    continued.close()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert rows[2]["loss"] == 1.0 / 3 and rows[3]["seconds"] == 3.5


def test_values_that_are_not_finite_are_null(tmp_path: Path):
    log = MetricsLog(tmp_path, 0, logging())
    log.write(1, {"loss": math.nan, "gradient_norm": math.inf, "psnr": 3.0})
    log.close()
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 1, "loss": None, "gradient_norm": None, "psnr": 3.0}]


def test_previews_are_images_and_events_are_written(tmp_path: Path):
    log = MetricsLog(tmp_path, 0, logging(tensorboard=True))
    image = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    log.write(7, {"loss": 1.0})
    log.image(7, image, "what is shown")
    log.close()
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "previews" / "step_00000007.png")), image)
    assert json.loads((tmp_path / "previews" / "README.json").read_text())["caption"] == "what is shown"
    assert any(file.stat().st_size for file in (tmp_path / "tensorboard").iterdir())


def test_plain_lines_with_rate_and_time_to_go(capsys: pytest.CaptureFixture[str]):
    progress = Progress("features", 10, 100, batch=8, interval=0.0)
    progress.update(11, 0.5)
    progress.update(100, 0.25)
    progress.close()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "features: step 10 of 100"
    assert re.fullmatch(r"features: step 11 of 100, loss 0.5000, \d+ images/s, .+ to go", lines[1])
    assert lines[2].endswith(", 0 s to go")
    assert re.fullmatch(r"features: 100 steps, \d+\.\d s", lines[3])
