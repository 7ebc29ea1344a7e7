"""What a run leaves and says while it runs."""

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fae_jax.files.writing import write_atomically
from fae_jax.training import monitoring
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


BAD_LINES = (b'{"st\0p": 2', b'{"step": "\xff"}', b"3", b"null", b'{"loss": 1.0}', b"[" * 100_000, b"")


@pytest.mark.parametrize("bad", BAD_LINES)
def test_a_bad_line_is_named_and_those_after_it_are_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], bad: bytes
):
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(b'{"step": 1}\n' + bad + b'\n{"step": 3}\n')
    log = MetricsLog(tmp_path, 3, logging())
    log.close()
    assert f"warning: line 2 of {file} is no row" in capsys.readouterr().err
    assert log.last == {"step": 3} and [row["step"] for row in read_metrics(file)] == [1, 3]


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


def test_rate_and_time_to_go_do_not_count_compiling(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    now = [1000.0]
    monkeypatch.setattr(monitoring.time, "monotonic", lambda: now[0])
    progress = Progress("features", 10, 100, batch=8, interval=0.0)
    now[0] += 600  # until the first step is compiled and done
    for step in (11, 12, 100):
        progress.update(step, 0.5)
        now[0] += 2
    progress.close()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "features: step 10 of 100"
    assert lines[1] == "features: step 11 of 100, loss 0.5000, 0 images/s, unknown time to go"
    assert lines[2] == "features: step 12 of 100, loss 0.5000, 4 images/s, 2 min 56 s to go"
    assert lines[3].endswith(", 0 s to go") and lines[4] == "features: 100 steps, 606.0 s"


def test_a_bar_starts_its_clock_after_the_first_step(monkeypatch: pytest.MonkeyPatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(monitoring.sys, "stderr", terminal)
    progress = Progress("features", 10, 100, batch=8)
    assert progress._bar is not None
    progress._bar.start_t -= 600
    progress._bar.last_print_t -= 600
    progress.update(11, 0.5)
    assert progress._bar.format_dict["elapsed"] < 60
    progress.close()
