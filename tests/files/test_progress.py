"""Lines of progress: when they come, what they count, and that they never end a run."""

import io
import sys
import time
from types import SimpleNamespace

import pytest

from fae_jax.files.progress import duration, report_progress, say


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock.monotonic)
    return clock


def test_rate_and_time_left_count_neither_an_earlier_run_nor_compiling(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = report_progress("cache")
    progress(500, 1000)  # an earlier run's
    clock.now += 300  # compiling
    for done in range(510, 1001, 10):
        progress(done, 1000)
        clock.now += 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "cache: 530 of 1000 images, 10 images/s, 47 s left"
    assert lines[1] == "cache: 630 of 1000 images, 10 images/s, 37 s left"
    assert len(lines) == 6 and lines[-1] == "cache: 1000 of 1000 images, 10 images/s, 0 s left"


def test_what_is_finished_already_is_said_without_a_rate(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    report_progress("cache")(8, 8)
    assert capsys.readouterr().err == "cache: 8 of 8 images\n"


@pytest.mark.parametrize("stream", ["closed", "gone"])
def test_a_stream_that_nobody_reads_ends_no_run(stream: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError(32, "Broken pipe")

    target = Gone() if stream == "gone" else io.StringIO()
    if stream == "closed":
        target.close()
    monkeypatch.setattr(sys, "stderr", target)
    assert say("a line") is False
    progress = report_progress("cache")
    for done in range(1, 9):
        progress(done, 8)


def test_a_line_is_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads that write a line each do not write into one another's."""
    written: list[str] = []
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(write=written.append, flush=lambda: None))
    assert say("a line") is True and written == ["a line\n"]


def test_durations_are_said_as_people_say_them() -> None:
    times = [duration(seconds) for seconds in (0.4, 59.6, 400.0, 7500.0)]
    assert times == ["0 s", "1 min 0 s", "6 min 40 s", "2 h 5 min"]
