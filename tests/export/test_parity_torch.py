"""The reader in docs/pytorch gives the images of a bundle with torch and safetensors alone."""

import dataclasses
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from network_reference import assert_close, randomise
from running import ROOT, environment

import fae_jax
from fae_jax.bundle import write_bundle
from fae_jax.config import check, load_config, to_json, with_values
from fae_jax.export.diffusers import READ
from fae_jax.parallel.mesh import make_mesh
from fae_jax.parts import generator_of
from fae_jax.stages.outline import Shapes
from fae_jax.weights import flatten

pytest.importorskip("torch")
pytestmark = pytest.mark.parity
READER = ROOT / "docs" / "pytorch" / "read_bundle.py"
SCRIPT = """
import json, sys
sys.modules |= dict.fromkeys(("jax", "fae_jax", "flax", "transformers", "diffusers"))  # refused from here on
sys.path.insert(0, sys.argv[1])
import numpy as np, torch
from read_bundle import FAE
model = FAE(sys.argv[2])
with torch.no_grad(), np.load(sys.argv[3]) as given:
    latents = model.encode(torch.tensor(given["images"]))
    made = {"latents": latents, "decoded": model.decode(latents)}
for name, how in json.loads(sys.argv[4]).items():
    made[name] = model.generate([3, 1, 10], **how)
np.savez(sys.argv[5], **{name: value.numpy() for name, value in made.items()})
"""
SEED = 4_000_000_000


def read(bundle: Path, folder: Path, images: np.ndarray, requests: dict) -> dict[str, np.ndarray]:
    """What the reader makes of a bundle, in a process of its own."""
    np.savez(folder / "given.npz", images=images)
    words = [READER.parent, bundle, folder / "given.npz", json.dumps(requests), folder / "made.npz"]
    command = [sys.executable, "-c", SCRIPT, *map(str, words)]
    done = subprocess.run(command, env=environment(PYTHONPATH=""), cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with np.load(folder / "made.npz") as made:
        return dict(made)


def test_the_reader_gives_the_models_images(finished: Path, tmp_path: Path):
    parts = fae_jax.load(finished).parts
    bundle = write_bundle(parts, tmp_path / "bundle")
    model = fae_jax.load(bundle)
    requests = {
        "heun": {"sampler": "heun", "steps": 2},  # euler: in test_diffusers.py
        "euler_maruyama": {"sampler": "euler_maruyama", "steps": 4, "guidance": [[0.1, 0.9, 3.0]]},
    }
    images = np.random.default_rng(0).uniform(-1, 1, (2, 32, 32, 3)).astype(np.float32)
    made = read(bundle, tmp_path, images, {name: {"seed": SEED, **how} for name, how in requests.items()})
    latents = model.encode(images)
    np.testing.assert_allclose(made["latents"], latents, atol=1e-4)
    np.testing.assert_allclose(made["decoded"], model.decode(latents), atol=1e-4)
    for name, how in requests.items():
        np.testing.assert_allclose(made[name], model.generate([3, 1, 10], seed=SEED, **how), atol=1e-4)


DIT = "generator.flow_matching.dit"
LIKE_SIT = {
    "encoder.feature_norm": "none",
    "compressor.kind": "linear",
    "compressor.posterior.kind": "sphere",
    "feature_decoder.transformer.width": 24,
    "feature_decoder.transformer.last_norm": True,
    f"{DIT}.norm": "layer",
    f"{DIT}.feed_forward": "gelu_tanh",
    f"{DIT}.rotary": False,
    f"{DIT}.time_scale": 1000.0,
}
LIKE_LIGHTNING = {
    "compressor.attention.activation": "gelu_tanh",
    "compressor.posterior.kind": "rms",
    f"{DIT}.qk_norm": True,
    f"{DIT}.depth": 2,
    "condition.kind": "none",
}


@pytest.mark.parametrize("changes", [LIKE_SIT, LIKE_LIGHTNING], ids=["SiT", "LightningDiT"])
def test_every_structure_is_read(changes: dict):
    torch = pytest.importorskip("torch")
    spec = importlib.util.spec_from_file_location("read_bundle", READER)
    reader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reader)
    config = check(with_values(load_config(str(ROOT / "tests" / "tiny.py")), changes))
    shapes = Shapes(config, make_mesh())
    tokenizer, generator = shapes.tokenizer, generator_of(shapes)
    names = ("compressor", "feature_decoder", "pixel_decoder", "generator")
    params = {name: randomise(shapes.params(name), seed=place) for place, name in enumerate(names)}
    content = {"config": json.loads(to_json(config)), "facts": dataclasses.asdict(tokenizer.facts), "latents": None}
    tensors = {name: {k: torch.tensor(v) for k, v in flatten(tree).items()} for name, tree in params.items()}
    model = reader.FAE(content=content, parts=tensors)
    assert {name: tuple(kinds.split()) for name, kinds in reader.KNOWN.items()} == READ
    content["config"]["compressor"]["kind"], known = "transformer", content["config"]["compressor"]["kind"]
    with pytest.raises(ValueError, match="compressor 'transformer' is not read here: use fae_jax.load"):
        reader.FAE(content=content, parts=tensors)
    content["config"]["compressor"]["kind"] = known

    random = np.random.default_rng(1)
    features, z = (random.normal(size=(2, 16, width)).astype(np.float32) for width in (16, 4))
    labels = np.asarray([0, 0] if config.condition.kind == "none" else [3, 10])
    velocity = jax.jit(generator.velocity)(params["generator"], z, jnp.full(2, 0.3), jnp.asarray(labels))
    with torch.no_grad():
        latents, given = model.compress(torch.tensor(features)).flatten(1, 2).numpy(), torch.tensor(z)
        decoded = model.decode(given.unflatten(1, (4, 4))).numpy()
        moved = model.velocity(given, 0.3, torch.tensor(labels)).numpy()
    assert_close(latents, jax.jit(tokenizer.compress)(params, features).mean)
    assert_close(decoded, jax.jit(tokenizer.decode)(params, z))
    assert_close(moved, velocity)
