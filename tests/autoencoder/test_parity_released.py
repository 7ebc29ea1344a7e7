"""A released decoder, diffusers' AutoencoderRAE, as the pixel decoder of stage Ib."""

import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from running import TINY

from fae_jax.cli.program import main
from fae_jax.config import check, load_config, with_values
from fae_jax.encoders.frozen import open_encoder
from fae_jax.parallel.mesh import make_mesh
from fae_jax.stages.experiment import Experiment
from fae_jax.stages.outline import Shapes
from fae_jax.stages.stage import read_record
from fae_jax.tokenizers.fae import Facts, FAETokenizer
from fae_jax.tokenizers.released import given
from fae_jax.weights import open_tensors
from fae_jax.workdir import Workdir

pytestmark = pytest.mark.parity
pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("diffusers")

SECTION = {
    "width": 16,
    "depth": 2,
    "heads": 2,
    "hidden": 24,
    "feed_forward": "gelu",
    "class_token": True,
    "positions": "fixed",
    "norm_epsilon": 1e-12,
}


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory):
    """(the model, its folder, the folder of its encoder with an affine last norm)."""
    import diffusers
    import torch
    import transformers

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("released")
    model = diffusers.AutoencoderRAE(
        encoder_type="dinov2",
        encoder_hidden_size=64,
        encoder_patch_size=14,
        encoder_num_hidden_layers=1,
        encoder_input_size=56,
        decoder_hidden_size=16,
        decoder_num_hidden_layers=2,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=24,
        patch_size=8,
        latents_mean=torch.randn(64, 1, 1),
        latents_std=torch.rand(64, 1, 1) + 0.5,
        scaling_factor=0.7,
    ).eval()
    for name, parameter in model.named_parameters():
        centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        parameter.data = centre + 0.2 * torch.randn_like(parameter)
    model.save_pretrained(folder / "rae")
    encoder = transformers.Dinov2WithRegistersModel(model.encoder.config)
    encoder.load_state_dict(model.encoder.state_dict(), strict=False)
    encoder.layernorm.weight.data = 1 + 0.3 * torch.randn(64)
    encoder.layernorm.bias.data = 0.3 * torch.randn(64)
    encoder.save_pretrained(folder / "encoder")
    return model, folder / "rae", folder / "encoder"


def changes(released, norm: str = "standardise") -> dict:
    _, rae, encoder = released
    return {
        "data.image_size": 32,
        "encoder.train": False,
        "encoder.name": "pretrained",
        "encoder.weights": str(encoder),
        "encoder.input_size": 56,
        "encoder.feature_norm": norm,
        "pixels.init_from": str(rae),
        "pixels.steps": 0,
        **{f"pixel_decoder.{name}": value for name, value in SECTION.items()},
    }


def configured(released, norm: str = "standardise", **more):
    return check(with_values(load_config(str(TINY)), {**changes(released, norm), **more}))


def parts(config):
    random = np.random.default_rng(0)
    mean, std = random.normal(size=64), random.uniform(0.5, 2, 64)
    facts = Facts.of(open_encoder(config), "float32", 1, mean, std)
    return Shapes(config, make_mesh(), tokenizer=FAETokenizer.build(config, facts))


@pytest.mark.parametrize("norm", ["standardise", "none"])
def test_images_come_back_as_diffusers_gives_them(released, norm: str):
    import torch

    made = parts(configured(released, norm))
    tokenizer, params = made.tokenizer, given(made)["pixel_decoder"]
    images = np.random.default_rng(1).uniform(-1, 1, (2, 32, 32, 3)).astype(np.float32)
    with torch.no_grad():
        theirs = released[0](torch.from_numpy(images).permute(0, 3, 1, 2) / 2 + 0.5).sample
    expected = 2 * theirs.permute(0, 2, 3, 1).numpy() - 1

    @jax.jit
    def through(params, encoder, images):
        features = tokenizer.space.enter(tokenizer.encoder.features(encoder, images))
        return tokenizer.pixel_decoder.apply({"params": params}, features)

    np.testing.assert_allclose(through(params, tokenizer.load("encoder"), images), expected, atol=1e-4)
    assert expected.std() > 0.1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            {"pixel_decoder.hidden": 48, "pixel_decoder.class_token": False},
            r"is another network: in pixel_decoder set hidden=24, class_token=True$",
        ),
        (
            {"data.image_size": 64},
            r"4×4 tokens of 64 channels as squares of 8 pixels, .* has 4×4 of 64, each 16 pixels",
        ),
        ({"encoder.layers": (-1,)}, "reads a ViT's last norm: leave encoder.layers at"),
    ],
)
def test_what_does_not_fit_is_refused(released, more: dict, message: str):
    with pytest.raises(ValueError, match=message):
        given(parts(configured(released, **more)))


def test_files_of_another_network_are_refused(released, tmp_path: Path):
    file = shutil.copy(released[1] / "diffusion_pytorch_model.safetensors", tmp_path / "alone.safetensors")
    with pytest.raises(ValueError, match="describes no network, not diffusers' AutoencoderRAE"):
        given(parts(configured(released, **{"pixels.init_from": str(file)})))
    with pytest.raises(FileNotFoundError, match="are not a file, a folder or a hub name"):
        given(parts(configured(released, **{"pixels.init_from": str(tmp_path / "none")})))
    with pytest.raises(ValueError, match="pixels.steps=0 trains nothing: it goes with init_from alone"):
        configured(released, **{"pixels.init_from": ""})


@pytest.mark.slow
def test_stage_pixels_is_done_without_a_step(released, tmp_path: Path):
    """Its checkpoint stands alone: what it was made of may go."""
    workdir, weights = tmp_path / "run", shutil.copytree(released[1], tmp_path / "rae")
    values = {name: value for name, value in changes(released).items() if name != "pixels.init_from"}
    words = [f"--config.{name}={value}" for name, value in values.items()]
    command = ["train", "pixels", "--config", str(TINY), "--workdir", str(workdir), *words]
    assert main([*command, f"--config.pixels.init_from={weights}"]) == 0
    file = workdir / "pixels" / "stage.json"
    before = file.read_bytes()
    record = read_record(Workdir(workdir), "pixels")
    assert record.finished == 0 and record.checkpoint and record.facts["init_from"] == open_tensors(weights).hash()
    experiment = Experiment(Workdir(workdir).read_config(), Workdir(workdir))
    expected = given(experiment.parts)["pixel_decoder"]
    shutil.rmtree(weights)
    jax.tree.map(np.testing.assert_array_equal, experiment.parts.params("pixel_decoder"), expected)
    assert main(["train", "pixels", "--workdir", str(workdir)]) == 0 and file.read_bytes() == before
