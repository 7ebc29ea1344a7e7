"""What a run leaves and says while it runs."""

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fae_jax.files.writing import write_atomically
from fae_jax.training.monitoring import LoggingSection, MetricsLog, Progress, read_metrics


def logging(**changes: Any) -> LoggingSection:
    return LoggingSection(**{"tensorboard": False, **changes})


def test_rows_after_the_restored_step_are_dropped_and_time_goes_on(folder: Any):
    log = MetricsLog(folder, 0, logging())
    for step in range(1, 6):
        log.write(step, {"loss": 1.0 / step, "seconds": float(step)})
    log.close()
    file = folder / "metrics.jsonl"
    write_atomically(file, file.read_text() + '{"step": 6, "lo')  # a kill in the middle of a line
    assert [row["step"] for row in read_metrics(file)] == [1, 2, 3, 4, 5]
    continued = MetricsLog(folder, 3, logging())
    assert continued.last["seconds"] == 3.0
    continued.write(4, {"loss": 0.25, "seconds": 3.5})
    continued.flush()  # as before every checkpoint
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    continued.close()
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert rows[2]["loss"] == 1.0 / 3 and rows[3]["seconds"] == 3.5


def test_a_bad_line_is_named_and_those_after_it_are_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "a.jsonl").write_text('{"step": 1}\n{"st\0p": 2\n{"step": 3}\n')
    assert [row["step"] for row in read_metrics(tmp_path / "a.jsonl")] == [1, 3]
    assert f"warning: line 2 of {tmp_path / 'a.jsonl'} is no row" in capsys.readouterr().err


def test_values_that_are_not_finite_are_null(tmp_path: Path):
    log = MetricsLog(tmp_path, 0, logging())
    log.write(1, {"loss": math.nan, "gradient_norm": math.inf, "psnr": 3.0})
    log.close()
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 1, "loss": None, "gradient_norm": None, "psnr": 3.0}]


def test_previews_are_images_and_events_are_written(folder: Any):
    log = MetricsLog(folder, 0, logging(tensorboard=True))
    image = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    log.write(7, {"loss": 1.0})
    log.image(7, image, "what is shown")
    log.close()
    with (folder / "previews" / "step_00000007.png").open("rb") as file:
        np.testing.assert_array_equal(np.asarray(Image.open(file)), image)
    assert json.loads((folder / "previews" / "README.json").read_text())["caption"] == "what is shown"
    assert any(file.read_bytes() for file in (folder / "tensorboard").iterdir())


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
