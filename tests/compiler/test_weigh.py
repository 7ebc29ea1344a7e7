"""The TPU compiler's own words about memory: its log of a program that fits, its error of one that does not."""

from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from fae_jax.compiler.weigh import judge, read_report, too_large
from fae_jax.stages import outline
from fae_jax.stages.outline import device_memory

# Two programs in one log, as libtpu 0.0.42 writes it
LOG = """
I1124 20:21:20.1 9410 deepsea_compiler_backend.cc:2125] XLA::TPU module name: jit_first
I1124 20:21:20.1 9410 deepsea_compiler_backend.cc:2127] XLA::TPU program HBM usage: 909.40M / 31.25G
I1124 20:21:20.1 9410 deepsea_compiler_backend.cc:2171] Total hbm usage >= 1.68G:
    reserved        260.00M
    program         909.40M
    arguments       549.14M
I1124 20:21:29.5 9121 deepsea_compiler_backend.cc:2125] XLA::TPU module name: jit_step
I1124 20:21:29.5 9121 deepsea_compiler_backend.cc:2127] XLA::TPU program HBM usage: 4.12G / 15.75G
I1124 20:21:29.5 9121 deepsea_compiler_backend.cc:2171] Total hbm usage >= 4.80G:
    reserved        258.01M
    program           4.12G
    arguments       433.16M
"""
GIB = 2**30


def test_the_last_program_of_a_log_is_read_in_its_units():
    report = read_report(LOG)
    assert report == {"temporaries": int(4.12 * GIB), "memory": int(15.75 * GIB), "peak": int(4.80 * GIB)}
    first = LOG[: LOG.index("I1124 20:21:29.5")]
    assert read_report(first)["temporaries"] == int(909.40 * 2**20)


def test_a_log_without_a_report_leaves_the_figures_alone():
    assert read_report("W1124 some warning\n") == {}


@pytest.mark.parametrize(
    "message",
    [
        "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (24.07G) "
        "exceeds available HBM (15.75G).",
        "XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 24.07G of 15.75G hbm. Exceeded",
    ],
)
def test_both_ways_to_say_that_a_program_is_too_large(message: str):
    assert too_large(message) == (int(24.07 * GIB), int(15.75 * GIB))


def test_another_failure_is_not_taken_for_memory():
    assert too_large("INTERNAL: Mosaic failed to compile TPU kernel: 24.07G of nothing") is None


@pytest.mark.parametrize(
    ("fits", "peak", "memory", "judged"),
    [(True, 2, 3, True), (True, 4, 3, False), (False, 2, 3, False), (True, 9, None, None), (False, 9, None, False)],
)
def test_a_peak_above_the_memory_does_not_fit(fits: bool, peak: int, memory: int | None, judged: bool | None):
    assert judge({"fits": fits, "peak": peak, "memory": memory})["fits"] is judged


@pytest.mark.parametrize("stats", [{"bytes_limit": 17 * GIB}, None])
def test_an_accelerator_has_what_it_says_itself_and_no_table_guesses_it(stats: dict[str, int] | None):
    # A slice of an H100 has the name of a whole one.
    slice = SimpleNamespace(platform="gpu", device_kind="NVIDIA H100 80GB HBM3", memory_stats=lambda: stats)
    assert device_memory(slice) == (stats and 17 * GIB)


def test_a_cpu_has_the_machine_or_what_its_container_may_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    cpu = SimpleNamespace(platform="cpu")
    monkeypatch.setattr(outline, "_CONTAINER", (tmp_path / "memory.max", tmp_path / "none"))
    monkeypatch.setattr(outline.jax, "local_device_count", lambda: 2)
    (tmp_path / "memory.max").write_text("max\n")
    assert device_memory(cpu) == psutil.virtual_memory().total // 2
    (tmp_path / "memory.max").write_text(f"{GIB}\n")
    assert device_memory(cpu) == GIB // 2
