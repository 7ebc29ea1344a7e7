"""The memory of a whole score: 50,000 images' features go by, and no more than is stated stays."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import pathlib, re, sys
import numpy as np
from fae_jax.evaluation.metrics import Batch, kid, mind, results, take_in
from fae_jax.evaluation.metrics.mind import AT_ONCE

kid.SUBSETS, mind.DIRECTIONS = 4, AT_ONCE  # all of them take as much memory, and longer
NAMES = ["fid", "inception_score", "kid", "mind"]


def stream(seed, count, size=64):
    rng = np.random.default_rng(seed)
    for start in range(0, count, size):
        k = min(size, count - start)
        pool, logits = rng.standard_normal((k, 2048), np.float32), rng.standard_normal((k, 1008), np.float32)
        look = lambda name, taps={"pool_3": pool, "logits": logits}: taps
        yield Batch(images=np.zeros((k, 1, 1, 3), np.uint8), labels=np.zeros(k, int), look=look)


count = int(sys.argv[1])
real = {"reference": take_in(stream(0, 10_000), NAMES, None, ())}
scores, _ = results(take_in(stream(1, count), NAMES, None, ()), real)
assert scores["kid"]["samples"] == min(count, 50_000) and scores["fid"]["samples"] == count, scores
print(int(re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1]) / 2**20)
"""


def gigabytes(tmp_path: Path, count: int) -> float:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = [sys.executable, str(program), str(count)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True, timeout=600).stdout)


@pytest.mark.slow
def test_50_000_features_of_2048_take_less_than_a_gigabyte(tmp_path: Path):
    assert gigabytes(tmp_path, 50_000) < 1.0
