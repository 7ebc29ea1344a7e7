"""diffusers loads the exported folder in a process without this package, and draws the model's images."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from network_reference import randomise
from running import environment

import fae_jax
from fae_jax.config import check, load_config, with_values
from fae_jax.data.stores.statistics import LatentStatistics
from fae_jax.encoders.pretrained import find_files
from fae_jax.encoders.published import TEXT_TOWERS
from fae_jax.export.diffusers import write_diffusers
from fae_jax.files.storage import sha256
from fae_jax.generators.sd3 import OPTIONS
from fae_jax.model import FAE
from fae_jax.parallel.mesh import make_mesh
from fae_jax.stages.outline import Shapes

SCRIPT = """
import sys
sys.modules |= dict.fromkeys(("jax", "fae_jax", "flax"))  # refused from here on
import numpy as np, torch
from diffusers import DiffusionPipeline
pipe = DiffusionPipeline.from_pretrained(sys.argv[1], trust_remote_code=True)
images = pipe(class_labels=[3, 1, 10], seed=4000000000, output_type="np").images
given = torch.tensor(images).permute(0, 3, 1, 2) * 2 - 1
with torch.no_grad():
    latents = pipe.vae.encode(given).latent
np.savez("made.npz", images=images, latents=latents)
"""


TEXT_SCRIPT = """
import sys
sys.modules |= dict.fromkeys(("jax", "fae_jax", "flax"))  # refused from here on
import json, numpy as np
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
pipe = DiffusionPipeline.from_pretrained(sys.argv[1], trust_remote_code=True)
assert type(pipe.transformer) is SD3Transformer2DModel and type(pipe.scheduler) is FlowMatchEulerDiscreteScheduler
np.savez("made.npz", images=pipe(**json.loads(sys.argv[2]), output_type="np").images)
"""
MMDIT = "generator.flow_matching.mmdit"
READS = {
    "data.captions": True,
    "condition.kind": "text",
    "condition.text.tower": "minilm_l6",
    "condition.text.length": 8,
    "generator.flow_matching.network": "mmdit",
    **{f"{MMDIT}.{name}": value for name, value in {"width": 16, "depth": 3, "heads": 2, "hidden": 64}.items()},
    **{f"{MMDIT}.{name}": value for name, value in OPTIONS.items()},
}


class Reading(Shapes):
    """Random parameters throughout, but for the tower of texts."""

    statistics = LatentStatistics(count=1, mean=np.ones(4) / 3, deviation=np.arange(1.0, 5), noise=np.ones(4))

    def params(self, part, ema=""):
        return self.text() if part == "text" else randomise(super().params(part), seed=len(part))


@pytest.mark.slow
@pytest.mark.parity
def test_diffusers_draws_from_texts_by_its_own_transformer_and_scheduler(tmp_path: Path):
    pytest.importorskip("diffusers")
    tiny = str(Path(__file__).parents[1] / "tiny.py")
    parts = Reading(check(with_values(load_config(tiny), READS)), make_mesh())
    folder = write_diffusers(parts, tmp_path / "model")
    tower = str(Path(find_files(None, TEXT_TOWERS["minilm_l6"]).folder))
    asked = {"prompt": ["a cat", "", "a dog " * 9], "negative_prompt": "rain", "seed": 4_000_000_000}
    guidance = [[0.0, 0.9, 2.5]]
    alone = environment(PYTHONPATH="", HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "home"))
    words = json.dumps({**asked, "tower": tower, "guidance": guidance})
    done = subprocess.run(
        [sys.executable, "-c", TEXT_SCRIPT, str(folder), words],
        env=alone,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    prompts = asked.pop("prompt")
    images = FAE(parts).generate(prompts=prompts, guidance=guidance, **asked)
    assert np.abs(images[0] - images[1]).max() > 1e-2
    with np.load(tmp_path / "made.npz") as made:
        np.testing.assert_allclose(made["images"] * 2 - 1, images, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parity
def test_diffusers_gives_gives_the_models_images(finished: Path, tmp_path: Path):
    pytest.importorskip("diffusers")
    ours = fae_jax.load(finished)
    folder = write_diffusers(ours.parts, tmp_path / "model")
    hashes = json.loads((folder / "files.json").read_text())
    assert hashes == {name: sha256(folder / name) for name in hashes} and "vae/modeling_fae.py" in hashes
    alone = environment(PYTHONPATH="", HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "home"))
    command = [sys.executable, "-c", SCRIPT, str(folder)]
    done = subprocess.run(command, env=alone, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    images = ours.generate([3, 1, 10], seed=4_000_000_000)
    with np.load(tmp_path / "made.npz") as made:
        np.testing.assert_allclose(made["images"] * 2 - 1, images, atol=1e-4)
        np.testing.assert_allclose(made["latents"].transpose(0, 2, 3, 1), ours.encode(images), atol=1e-4)


class Untrained(Shapes):
    has_generator = False


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"compressor.kind": "transformer"}, "does not know the compressor 'transformer': use bundle or stablehlo"),
        ({}, "needs a generator"),
        ({"generator.flow_matching.dit.patch": 2}, "does not know generator.flow_matching.dit.patch=2: use bundle"),
        ({"sampling.guidance": ((0.0, 1.0, 1.4, "internal"),)}, "classifier-free guidance: set sampling.sampler"),
        ({**READS, f"{MMDIT}.norm": "rms"}, "train with generator.flow_matching.mmdit: norm=layer"),
        ({**READS, "sampling.sampler": "heun"}, "knows euler here"),
        ({"sampling.sampler": "adams_bashforth"}, "knows euler, heun, euler_maruyama here"),
    ],
)
def test_what_the_code_does_not_know_is_refused(tmp_path: Path, changes: dict, message: str):
    config = check(with_values(load_config(str(Path(__file__).parents[1] / "tiny.py")), changes))
    with pytest.raises(ValueError, match=message):
        write_diffusers(Untrained(config, make_mesh()), tmp_path / "out")
    assert not (tmp_path / "out").exists()
