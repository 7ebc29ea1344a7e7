"""A generator told by sentences, killed at random moments, restarted on other numbers of devices and hosts."""

import json
import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from every_section import forget
from running import TINY, forked, killed, lines, of_the_machine
from test_extending import BLOCKS, POINTS, install

from fae_jax.data.stores.latent_loader import LatentLoader
from fae_jax.stages.experiment import Experiment
from fae_jax.stages.latents import open_latents
from fae_jax.training.monitoring import read_metrics
from fae_jax.workdir import Workdir

STEPS, BATCH = 60, 8
# The tower of docs/extending.md, that writes down which captions it reads
WATCHED = """
import dataclasses, functools, json
from my_package import letters as plain


@functools.wraps(plain)
def letters(**given):
    tower = plain(**given)

    def tokenize(captions):
        with open({log!r}, "a") as file:
            file.write(json.dumps(captions) + "\\n")
        return tower.tokenize(captions)

    return dataclasses.replace(tower, tokenize=tokenize)
"""
FIELDS = {
    "data.source": "digit_captions",
    "data.captions": True,
    "tokenizer.kind": "averages",
    "encoder.train": False,
    "condition.kind": "text",
    "condition.text.tower": "letters",
    "generator.flow_matching.network": "mmdit",
    **{f"generator.flow_matching.mmdit.{name}": 16 for name in ("width", "hidden")},
    **{f"generator.flow_matching.mmdit.{name}": 2 for name in ("depth", "heads")},
    "generator.steps": STEPS,
    "generator.learning_rate": 1e-3,
}


def told(workdir: Path) -> list[dict[str, Any]]:
    """The generator's curve, without what tells of the machine."""
    rows = read_metrics(workdir / "generator" / "metrics.jsonl")
    return [{name: value for name, value in row.items() if not of_the_machine(name)} for row in rows]


def read_captions(log: Path) -> set[tuple[str, ...]]:
    """What each call of the tokenizer was given since this was last asked."""
    given = {tuple(json.loads(line)) for line in log.read_text().splitlines()}
    log.unlink()
    return given


def expected_captions(workdir: Path) -> list[tuple[str, ...]]:
    """The captions of each global batch, by the loader alone, and of the batches that are read ahead at the end."""
    experiment = Experiment(Workdir(workdir).read_config(), Workdir(workdir))
    source, seed = open_latents(experiment.workdir).source, experiment.seed("latents")
    with LatentLoader(source=source, batch=BATCH, seed=seed, flip=True).at(0) as batches:
        return [tuple(next(batches)["caption"].tolist()) for _ in range(STEPS + 16)]


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the tower of a package that is installed meanwhile writes what it reads."""
    site, log = tmp_path / "site", tmp_path / "captions"
    site.mkdir()
    (site / "my_package.py").write_text(BLOCKS)
    (site / "watched.py").write_text(WATCHED.format(log=str(log)))
    install(site, "my_package", {**POINTS, "fae_jax.text_encoders": {"letters": "watched:letters"}})
    monkeypatch.syspath_prepend(site)
    forget()
    yield log
    monkeypatch.undo()
    forget()


@pytest.mark.slow(seconds=45)
def test_killed_and_restarted_elsewhere_it_reads_the_same_captions_and_has_the_same_curve(log: Path, tmp_path: Path):
    words = ["--config", TINY, *(f"--config.{name}={value}" for name, value in FIELDS.items()), "--workdir"]
    whole, other = tmp_path / "whole", tmp_path / "killed"
    (process,) = forked("run", *words, whole)
    process.join()
    assert process.exitcode == 0
    expected = expected_captions(whole)
    assert len(set(expected)) == len(expected)
    assert set(expected[:STEPS]) <= read_captions(log) <= set(expected)

    shutil.copytree(whole, other, ignore=shutil.ignore_patterns("generator", "report*", "timings*"))
    seed = time.time_ns() % 10**6
    rng, rows, landed = random.Random(seed), other / "generator" / "metrics.jsonl", []
    seen: set[tuple[str, ...]] = set()
    for hosts, devices in ((1, 1), (1, 1), (1, 2), (2, 1)):
        due = {"rows": rows, "least": lines(rows) + rng.randrange(2, 7), "delay": rng.uniform(0.0, 0.01)}
        assert killed("train", "generator", *words, other, **due, hosts=hosts, devices=devices) == -signal.SIGKILL
        landed.append((hosts, devices, lines(rows)))
        part = BATCH // hosts
        own = {batch[place : place + part] for batch in expected for place in range(0, BATCH, part)}
        read = read_captions(log)
        assert read <= own, (landed, read - own)
        seen |= read
        if hosts * devices == 1:  # the same devices: bitwise
            ours = told(other)
            assert ours == told(whole)[: len(ours)] and ours
    (process,) = forked("train", "generator", *words, other)
    process.join()
    assert process.exitcode == 0
    seen |= read_captions(log)
    half = BATCH // 2
    assert all(batch in seen or {batch[:half], batch[half:]} <= seen for batch in expected[:STEPS])
    assert [row["step"] for row in told(other)] == [*range(1, STEPS + 1)]
    ours, theirs = (np.array([row["loss"] for row in told(workdir)]) for workdir in (other, whole))
    print(f"seed {seed}, killed at {landed}; losses differ by {np.abs(ours / theirs - 1).max():.1e} at most")
    # sums over examples are rounded in another order on other devices, and that grows from step to step
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
