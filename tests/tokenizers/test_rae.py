"""Features as latents, through every stage that is left."""

import json
from pathlib import Path

import numpy as np
import pytest
from running import TINY

import fae_jax
from fae_jax.cli.program import main
from fae_jax.compiler.programs import stages_to_compile
from fae_jax.config import check, load_config, with_values
from fae_jax.stages.running import stages_of


def test_only_the_pixel_decoder_is_trained():
    config = check(with_values(load_config(str(TINY)), {"tokenizer.kind": "rae"}))
    assert [stage.name for stage in stages_of(config)] == ["encoder", "pixels", "cache", "generator"]
    assert stages_to_compile(config) == ["pixels", "cache", "generator", "sample"]


@pytest.mark.slow
def test_it_goes_through_every_command(tmp_path: Path):
    run, out = tmp_path / "run", tmp_path / "bundle"
    words = ["--config.tokenizer.kind=rae", "--config.encoder_training.steps=2", "--config.generator.steps=2"]
    assert main(["run", "--config", str(TINY), "--workdir", str(run), *words]) == 0
    assert not any((run / stage).exists() for stage in ("features", "finetune"))
    model = fae_jax.load(run)
    images = np.random.default_rng(0).uniform(-1, 1, (2, 32, 32, 3)).astype(np.float32)
    latents = model.encode(images)
    assert latents.shape == (2, 4, 4, 16)
    np.testing.assert_allclose(model.reconstruct_features(latents), model.features(images), atol=1e-5)
    noise = "--config.evaluation.reconstruction.noise=(0.0, 2.0)"
    assert main(["evaluate", "--workdir", str(run), "--task", "reconstruction", noise]) == 0
    sets = json.loads((run / "evaluation" / "reconstruction.json").read_text())["sets"]
    assert sets["noise_0"]["psnr"] == pytest.approx(sets["heldout"]["psnr"], abs=1e-3)
    assert sets["noise_2"]["psnr"] < sets["noise_0"]["psnr"]
    assert main(["export", "--workdir", str(run), "--out", str(out)]) == 0
    assert {file.stem for file in out.glob("*.safetensors")} == {"pixel_decoder", "generator"}
    np.testing.assert_allclose(fae_jax.load(out).decode(latents), model.decode(latents), atol=1e-6)
