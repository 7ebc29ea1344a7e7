"""Post-training: towards a known target, through the commands, killed and resumed, and what is refused."""

import dataclasses
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from running import TINY, assert_same_arrays, curve, killed, lines, record, saved_state

import fae_jax
from fae_jax.cli.program import main
from fae_jax.config import check, load_config, with_values
from fae_jax.data.pixels import to_uint8
from fae_jax.data.sources.digits import DigitsSource
from fae_jax.extractors import Extractor
from fae_jax.extractors.moments import Moments, Running, factor, frechet_distance
from fae_jax.stages import post_training as stage
from fae_jax.training.state import Player, initial_state
from fae_jax.training.step import train_step
from fae_jax.workdir import Workdir

# A known target: images of 2×2 pixels, 12 numbers

SHAPE = (2, 2, 3)


def mixture(count: int) -> np.ndarray:
    """Two Gaussians of different spread, as images in [−1, 1]."""
    rng = np.random.default_rng(0)
    side, turn = rng.integers(0, 2, (count, 1)), np.linalg.qr(rng.normal(size=(12, 12)))[0]
    spread = np.linspace(0.02, 0.2, 12) * rng.normal(size=(count, 12))
    return (np.where(side, 0.3, -0.2) + np.where(side, spread, 2 * spread) @ turn).clip(-1, 1).reshape(-1, *SHAPE)


def draw(params: Any, frozen: Any, batch: Any, keys: jax.Array) -> jax.Array:
    noise = jax.vmap(lambda key: jax.random.normal(key, (12,)))(keys)
    return (noise @ params["kernel"] + params["bias"]).reshape(-1, *SHAPE)


def look(params: Any, images: jax.Array) -> dict[str, jax.Array]:
    return {"all": images.reshape(len(images), -1) / 127.5 - 1}


WHOLE = Extractor(name="whole", variant="pixels", weights_hash="0" * 64, params={}, apply=look)


STEPS, TARGET = 120, Moments.of(mixture(4000).reshape(-1, 12))
START = {"kernel": 0.5 * np.eye(12, dtype=np.float32), "bias": np.zeros(12, np.float32)}


def toy(decay: float) -> tuple[dict[str, Player], dict[str, Any]]:
    """Players and what is frozen; the queue is filled by the fourth batch of 64."""
    section = stage.PostTrainingSection(
        steps=STEPS, batch=64, queue=256, decay=decay, learning_rate=0.01, warmup=0, clip=0.0
    )
    spaces = {"whole": stage.Space(WHOLE, "all", 12)}
    given = {"mean": TARGET.mean.astype(np.float32), "root": factor(TARGET).astype(np.float32)}
    player = stage.player_of(section, lambda key: jax.tree.map(jnp.asarray, START), draw, spaces)
    return {"generator": player}, {"whole": {}, "reference": {"whole": given}}


@pytest.mark.parametrize("decay", [0.0, 0.8])
def test_one_step_comes_from_far_to_the_known_target(decay: float):
    players, frozen = toy(decay)

    def apart(params: Any) -> float:
        images = stage.pixels(draw(params, {}, {}, jax.random.split(jax.random.key(9), 4000)))
        return frechet_distance(Moments.of(np.asarray(look({}, images)["all"])), TARGET)

    batch = {"index": jnp.zeros(64)}
    step = jax.jit(lambda state, frozen: train_step(players, 1, 0, state, frozen, batch))
    state, losses = initial_state(players, 0), []
    for number in range(STEPS):
        state, metrics = step(state, frozen)
        losses.append(float(metrics["frechet_whole"]))
        if number == 2:  # the fourth fills the queue
            jax.tree.map(np.testing.assert_array_equal, state.players["generator"].params, START)
    assert metrics["gradient_norm"] > 0 and metrics["skipped"] == 0
    before, after = apart(START), apart(state.players["generator"].params)
    assert losses[2] == pytest.approx(before, rel=0.1)
    assert after < before / 100, (before, after)


# Through the commands

FIELDS = {"steps": 60, "batch": 32, "queue": 96, "decay": 0.9, "learning_rate": 1e-2, "warmup": 4, "ema": "(0.5,)"}


def words(**more: object) -> list[str]:
    return [f"--config.post_training.{name}={value}" for name, value in {**FIELDS, **more}.items()]


def told(folder: Path) -> Any:
    return json.loads((folder / "settings.json").read_text())


def copied(finished: Path, workdir: Path, *without: str) -> Path:
    shutil.copytree(finished, workdir, ignore=shutil.ignore_patterns("samples", "evaluation", *without))
    return workdir


@pytest.mark.slow(seconds=25)
def test_a_generator_is_post_trained_killed_resumed_drawn_scored_and_exported(finished: Path, tmp_path: Path):
    whole, other = (copied(finished, tmp_path / name) for name in ("whole", "killed"))
    train = ("train", "post_training", *words(), "--workdir")
    assert main([*train, str(whole)]) == 0
    rows = other / "post_training" / "metrics.jsonl"
    for least in (2, 11):
        ended = killed(*train, other, rows=rows, least=lines(rows) + least, delay=0.02)
        assert ended == -signal.SIGKILL and lines(rows) < FIELDS["steps"]
    assert main([*train, str(other)]) == 0
    assert curve(other, "post_training") == curve(whole, "post_training")
    assert record(other, "post_training") == record(whole, "post_training")
    ours = saved_state(other, "post_training")
    assert any(path.endswith("['memory']['encoder']['root']") for path in ours)
    assert_same_arrays(ours, saved_state(whole, "post_training"))

    here = ["--workdir", str(whole)]
    assert main(["sample", *here, "--number", "7"]) == 0
    settings = told(whole / "samples" / "samples")
    expected = {"steps": 1, "sampler": "euler", "function_evaluations": 1, "guidance": [], "stage": "post_training"}
    assert {name: settings[name] for name in expected} == expected and settings["checkpoint"] == FIELDS["steps"]
    assert main(["sample", *here, "--number", "2", "--checkpoint", "8", "--name", "before"]) == 0
    settings = told(whole / "samples" / "before")
    assert settings["steps"] == 4 and settings["checkpoint"] == 8 and "stage" not in settings
    assert main(["export", *here, "--out", str(tmp_path / "bundle")]) == 0
    bundle = fae_jax.load(str(tmp_path / "bundle"))
    with np.load(whole / "samples" / "samples" / "samples.npz") as kept:  # drawn in batches of five
        difference = to_uint8(bundle.generate([0, 1])).astype(int) - kept["arr_0"][:2]
    assert np.abs(difference).max() <= 1 and bundle.config.sampling.steps == 1
    assert main(["evaluate", *here, "--task", "generation", "--config.evaluation.samples=10"]) == 0
    result = json.loads((whole / "evaluation" / "generation.json").read_text())
    assert {each["sampling"]["function_evaluations"] for each in result["sets"].values()} == {1}
    assert result["origin"]["stages"]["post_training"]["step"] == FIELDS["steps"]

    reference, apart = Running(), {}
    with np.load(whole / "post_training" / "reference.npz") as kept:
        reference.restore({name: kept[f"encoder/{name}"] for name in ("count", "mean", "deviations")})
    real, before, after = reference.moments, fae_jax.load(whole, step=8), fae_jax.load(whole)
    assert real is not None and real.count == len(DigitsSource(split="train", holdout=0.8, seed=0))
    for name, model in {"before": before, "after": after}.items():
        images = model.generate(np.resize(np.arange(10), 400), steps=1, guidance=None, ema=None)
        apart[name] = frechet_distance(Moments.of(np.asarray(model.features(images).mean((1, 2)))), real)
    assert apart["after"] < apart["before"] / 3, apart


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"post_training.sampling_steps": 0}, "field post_training.sampling_steps must be at least 1, got 0"),
        ({"post_training.spaces": ("incepton",)}, "'incepton' is none of the extractors; did you mean 'inception'?"),
        ({"post_training.spaces": ("encoder:cls",)}, "'encoder:cls' names no tap: encoder gives mean"),
        ({"post_training.queue": 16, "post_training.batch": 8}, "post_training.queue=16 must be above 16, the dim"),
        ({"post_training.queue": 31}, "field post_training.queue=31 must hold a batch of batch=32"),
        ({"post_training.microbatches": 2}, "field post_training.microbatches=2 must be 1"),
        ({"generator.kind": "starflow"}, "and generator.kind=starflow draws in none: set post_training.steps=0"),
        ({"tokenizer.kind": "taesd"}, "the tokenizer 'taesd' has no encoder to compare in"),
    ],
)
def test_what_cannot_be_post_trained_is_refused_by_name(fields: dict[str, Any], problem: str):
    given = {"post_training.steps": 4, "post_training.batch": 32, "post_training.queue": 96, **fields}
    with pytest.raises(ValueError) as caught:
        stage.check(check(with_values(load_config(str(TINY)), given)))
    assert problem in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_it_is_asked_for_and_needs_a_generator(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    workdir = copied(finished, tmp_path / "run", "generator")
    shutil.copy(finished / "encoder" / "config.json", workdir / "encoder")
    for more, problem in ([], "post_training.steps=0, so that"), (words(), "needs stage generator, which is not"):
        assert main(["train", "post_training", "--workdir", str(workdir), *more]) == 2
        err = capsys.readouterr().err
        assert problem in err and len(err.splitlines()) == 1 and not (workdir / "post_training").exists()


def test_it_is_added_to_a_finished_experiment_and_then_stays_as_it_is(tmp_path: Path):
    workdir, config = Workdir(tmp_path), check(load_config(str(TINY)))

    def asked(base: Any = config, steps: int = 60, **more: Any) -> Any:
        return dataclasses.replace(base, post_training=stage.PostTrainingSection(steps=steps, **more))

    workdir.begin(config)
    workdir.begin(asked())
    workdir.begin(asked(steps=80))
    longer = dataclasses.replace(config, generator=dataclasses.replace(config.generator, steps=90))
    with pytest.raises(ValueError, match="generator.steps: 8 → 90"):
        workdir.check_config(asked(longer, 80))
    (tmp_path / "post_training").mkdir()
    (tmp_path / "post_training" / "stage.json").touch()
    with pytest.raises(ValueError, match=r"post_training.steps: 80 → 60; post_training.decay: 0.999 → 0.5"):
        workdir.check_config(asked(decay=0.5))
