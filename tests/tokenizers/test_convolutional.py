"""Tokenizers that no stage trains: their files, their refusals, what a latent's identity is made of."""

import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import kl_files
import numpy as np
import pytest
from PIL import Image
from running import TINY

import fae_jax
from fae_jax.cli.program import main
from fae_jax.compiler.programs import lower, stages_to_compile
from fae_jax.config import check, load_config, with_values
from fae_jax.parallel.mesh import make_mesh
from fae_jax.tokenizers import Tokenizer, tokenizer_kind
from fae_jax.weights import Tensors, flatten, load_tree, write_tensors


def named(kind: str, fields: dict) -> dict:
    values = {name: str(value) if isinstance(value, Path) else value for name, value in fields.items()}
    return {f"tokenizer.{kind}.{name}": value for name, value in values.items()}


def configured(kind: str, **fields):
    return check(with_values(load_config(str(TINY)), {"tokenizer.kind": kind} | named(kind, fields)))


def built(kind: str, **fields) -> Tokenizer:
    config = configured(kind, **fields)
    return tokenizer_kind(config).build(config)


def small_kl(weights: Path, **fields) -> Tokenizer:
    return built("autoencoder_kl", weights=str(weights), **{**kl_files.FIELDS, **fields})


def test_every_layout_of_a_file_gives_the_same_parameters(tmp_path: Path):
    state = kl_files.state(coarsest=True)
    ours, *theirs = (
        small_kl(kl_files.write(tmp_path / layout.__name__, layout(state)), attention="coarsest")
        for layout in (dict, kl_files.older, kl_files.latent_diffusion)
    )
    kept = 0
    for part in (*ours.encodes, *ours.decodes):
        params = ours.load(part)
        for each in theirs:
            jax.tree.map(np.testing.assert_array_equal, params, each.load(part))
        kept += sum(leaf.size for leaf in jax.tree.leaves(params))
    assert kept == sum(array.size for array in state.values())


def test_an_outline_needs_no_weights_and_tokens_are_patches_of_cells():
    for kind, fields, channels in (
        ("autoencoder_kl", {}, 16),
        ("taesd", {}, 128),
        ("taesd", {"variant": "taef1"}, 64),
    ):
        config = configured(kind, **fields)
        outline = tokenizer_kind(config).outline(config)
        assert isinstance(outline, Tokenizer) and outline.trained == {}
        assert (outline.grid, outline.channels) == ((2, 2), channels)
    cells = jnp.arange(2.0 * 4 * 4 * 32).reshape(2, 4, 4, 32)
    outline = tokenizer_kind(configured("taesd")).outline(configured("taesd"))
    tokens = outline._tokens(cells)
    assert np.array_equal(tokens[1, 3], cells[1, 2:, 2:].reshape(-1))
    assert np.array_equal(outline._cells(tokens), cells)


def test_an_identity_is_of_weights_structure_and_patch(tmp_path: Path):
    first = kl_files.write(tmp_path / "a", kl_files.state())
    second = kl_files.write(tmp_path / "b", kl_files.state(seed=1))
    made = [small_kl(first), small_kl(first, patch=1), small_kl(second)]
    identities = [json.dumps(each.identity({"image_encoder": each.load("image_encoder")})) for each in made]
    assert len(set(identities)) == 3
    again = small_kl(first)
    assert json.dumps(again.identity({"image_encoder": again.load("image_encoder")})) == identities[0]


def test_what_does_not_fit_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    weights = kl_files.write(tmp_path / "kl", kl_files.state())
    with pytest.raises(ValueError, match="does not hold the weights this network needs; .* instead of"):
        small_kl(weights, channels=4)
    with pytest.raises(ValueError, match="misshapen|missing"):
        small_kl(weights, attention="coarsest")
    with pytest.raises(ValueError, match="1 extra: encoder.extra.weight"):
        small_kl(kl_files.write(tmp_path / "more", {**kl_files.state(), "encoder.extra.weight": np.zeros(1, "f")}))
    with pytest.raises(
        ValueError, match="data.image_size=32 must be a multiple of 12: a token is 3 × 3 cells of 4 × 4"
    ):
        small_kl(weights, patch=3)
    with pytest.raises(ValueError, match="groups=3 must divide each of widths"):
        small_kl(weights, groups=3)
    config = {"_class_name": "AutoencoderKL", "block_out_channels": [8, 8, 16], "norm_num_groups": 2}
    (weights / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"is another network: in tokenizer.autoencoder_kl set groups=2"):
        small_kl(weights)
    (weights / "config.json").write_text(json.dumps({**config, "down_block_types": ["CrossAttnDownBlock2D"]}))
    with pytest.raises(ValueError, match="CrossAttnDownBlock2D, which the tokenizer autoencoder_kl has not"):
        small_kl(weights)
    with pytest.raises(FileNotFoundError, match="bring them: fae weights pull taef2_encoder"):
        built("taesd")
    with pytest.raises(FileNotFoundError, match="fae weights convert taesd3_encoder.pth --out FOLDER"):
        built("taesd", variant="taesd3")
    with pytest.raises(ValueError, match="does not hold the weights this network needs; 79 missing"):
        built("taesd", encoder=str(weights), decoder=str(weights))


def taesd_files(folder: Path) -> dict[str, str]:
    """Both halves of a TAESD at random, under the names of its authors."""
    random, files = np.random.default_rng(0), {}
    outline = tokenizer_kind(configured("taesd", variant="taesd")).outline(configured("taesd", variant="taesd"))
    for part in (*outline.encodes, *outline.decodes):
        state = {}
        for rule in outline.names_of(part, Tensors({})).rules:
            (name,) = rule.parts
            shape = name.layout.shape_in_file(flatten(outline.shapes(part))[rule.target].shape)
            state[name.name] = (random.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
        half = part.removeprefix("image_")
        write_tensors(folder / half / "model.safetensors", state)
        files[half] = str(folder / half)
    return files


def images(folder: Path) -> Path:
    """Twenty-four of two classes."""
    random = np.random.default_rng(0)
    for number in range(24):
        file = folder / "images" / f"class_{number % 2}" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (4, 4, 3), np.uint8)).resize((32, 32)).save(file)
    return folder / "images"


@pytest.mark.slow
def test_one_goes_through_every_command(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """With the real TAEF2 where there is real data; else with weights at random."""
    for name in ("XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    real = os.environ.get("FAE_REAL_DATA")
    if real:
        fields = {half: f"{real}/weights/taef2_{half}.safetensors" for half in ("encoder", "decoder")}
    else:
        fields = {"variant": "taesd", **taesd_files(tmp_path)}
    run = tmp_path / "run"
    data = {"source": "folder", "path": images(tmp_path), "holdout": 0.5, "classes": 2, "flip": False}
    words = [f"--config.data.{name}={value}" for name, value in data.items()]
    words += ["--config.tokenizer.kind=taesd", "--config.generator.steps=2"]
    chosen = [f"--config.tokenizer.taesd.{name}={value}" for name, value in fields.items()]

    def fae(verb: str, *rest: object, code: int = 0) -> str:
        assert main([verb, *map(str, rest)]) == code
        return capfd.readouterr().err

    for kind, command in (("taesd", "pull taef2_encoder"), ("autoencoder_kl", "pull stabilityai/sd-vae-ft-mse")):
        missing = [*words, f"--config.tokenizer.kind={kind}"]
        err = fae("cache", "--config", TINY, "--workdir", run, *missing, code=2)
        assert len(err.splitlines()) == 1 and f"fae weights {command}" in err and not run.exists()
    fae("cache", "--config", TINY, "--workdir", run, *words, *chosen)
    fae("train", "generator", "--workdir", run)
    assert not any((run / stage).exists() for stage in ("encoder", "features", "pixels", "finetune"))
    fae("sample", "--workdir", run, "--number", 3)
    assert np.load(run / "samples" / "samples" / "samples.npz")["arr_0"].shape == (3, 32, 32, 3)
    err = fae("evaluate", "--workdir", run, "--task", "generation", code=2)
    assert "the tokenizer 'taesd' has no encoder to compare in" in err
    nearest = "--config.evaluation.generation.metrics=('nearest',)"
    fae("evaluate", "--workdir", run, "--task", "reconstruction", "generation", nearest)
    scores = json.loads((run / "evaluation" / "reconstruction.json").read_text())["sets"]["heldout"]
    assert scores["count"] == 12 and scores["psnr"] > (20 if real else 0)
    fae("export", "--workdir", run, "--out", tmp_path / "bundle")
    for file in {"image_encoder", "image_decoder"}:
        written = load_tree(tmp_path / "bundle" / f"{file}.safetensors")
        jax.tree.map(np.testing.assert_array_equal, written, built("taesd", **fields).load(file))
    assert fae_jax.load(tmp_path / "bundle").generate([0, 1], guidance=None).shape == (2, 32, 32, 3)
    config = with_values(load_config(str(TINY)), {"tokenizer.kind": "taesd"} | named("taesd", fields))
    assert stages_to_compile(config) == ["cache", "generator", "sample"]
    assert lower(config, "cache", make_mesh()).batch == 16
