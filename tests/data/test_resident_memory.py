"""Resident memory of the loaders, worker processes included, stays where it is however many batches are drawn."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def resident(*words: str) -> list[float]:
    """MiB after 1,000 batches and after every tenth of all of them, in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, str(ROOT / "benchmarks" / "data.py"), *words]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])["resident_mib"]


LOADERS = {"images": (), "latents": ("--latents", "300")}


@pytest.mark.parametrize("loader", LOADERS)
def test_thousands_of_batches_take_no_more_memory_than_one_thousand(loader: str) -> None:
    sizes = resident("--memory", "6000", "--workers_list", "0", *LOADERS[loader])
    assert sizes[-1] - sizes[2] < 6, sizes  # two kilobytes kept of each batch would be 8 MiB more


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "batches"), [("0", "100000"), ("2", "10000")])  # workers pass batches on slowly
@pytest.mark.parametrize("loader", LOADERS)
def test_so_many_batches_take_no_more_memory_than_a_tenth(loader: str, workers: str, batches: str) -> None:
    sizes = resident("--memory", batches, "--workers_list", workers, *LOADERS[loader])
    assert max(sizes[5:]) - sizes[2] < 16, sizes  # 200 bytes kept of each of 100,000 would be 15 MiB more
