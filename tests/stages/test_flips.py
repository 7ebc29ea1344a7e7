"""One flipped bit, anywhere in what stages left: it is noticed, or changes nothing that is read."""

import random
import shutil
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import fae_jax
from fae_jax.errors import RunFailed
from fae_jax.stages.latents import open_latents
from fae_jax.workdir import Workdir

FLIPS = 100
PARTS = ("encoder", "compressor", "feature_decoder", "pixel_decoder", "generator")
KEPT = {  # what is flipped, and how often
    "*/checkpoints/8/**/*": 50,
    "latents/*/*": 20,
    "encoder/model.safetensors": 10,
    "*/stage.json": 15,
    "encoder/config.json": 5,
}


def read(workdir: Path) -> list[bytes]:
    """All that sampling, evaluation and a generator's training read: parameters, facts, records."""
    parts = fae_jax.load(workdir).parts
    arrays = [np.asarray(leaf) for part in PARTS for leaf in jax.tree.leaves(parts.params(part))]
    source = open_latents(Workdir(workdir)).source
    records = [np.asarray(value) for i in range(len(source)) for value in jax.tree.leaves(source[i])]
    return [str(parts.facts).encode(), *(array.tobytes() for array in [*arrays, *records])]


@pytest.mark.slow(seconds=90)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Orbax's, of what it cannot read
def test_a_hundred_flipped_bits(finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    seed = time.time_ns() % 10**6
    rng, workdir = random.Random(seed), tmp_path / "flipped"
    shutil.copytree(finished, workdir)
    before, noticed = read(workdir), 0
    capfd.readouterr()
    for pattern, count in KEPT.items():
        files = sorted(path for path in workdir.glob(pattern) if path.is_file() and path.stat().st_size)
        for _ in range(count):
            file = rng.choices(files, [path.stat().st_size for path in files])[0]
            content = bytearray(file.read_bytes())
            place, bit = rng.randrange(len(content)), rng.randrange(8)
            content[place] ^= 1 << bit
            whole = file.read_bytes()
            file.write_bytes(content)
            try:
                same = read(workdir) == before
            except (ValueError, OSError, RunFailed):
                noticed += 1
            else:
                told = "warning" in capfd.readouterr().err
                noticed += told
                assert same or told, f"seed {seed}: bit {bit} of byte {place} of {file.relative_to(workdir)}"
            file.write_bytes(whole)
    print(f"seed {seed}: {noticed} of {FLIPS} noticed, the others without effect")
    assert sum(KEPT.values()) == FLIPS and noticed > FLIPS / 4
