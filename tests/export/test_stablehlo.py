"""The exported programs say what the model says, bit for bit on one machine, with jax and numpy alone."""

import argparse
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax import export
from running import TINY, environment, fae

import fae_jax
from fae_jax import FAE
from fae_jax.commands.export import add_arguments, run
from fae_jax.config import check, load_config
from fae_jax.data.pixels import to_uint8
from fae_jax.encoders.vit import ViT, ViTConfig
from fae_jax.export.stablehlo import PLATFORMS, programs, write_stablehlo
from fae_jax.export.stablehlo_run import FORMAT, Model
from fae_jax.parallel.mesh import make_mesh
from fae_jax.stages.outline import Shapes

# What `pip install jax numpy` brings. None of it knows fae_jax, flax or safetensors.
ALONE = ("jax", "jaxlib", "numpy", "ml_dtypes", "scipy", "opt_einsum")


@pytest.fixture(scope="module")
def exported(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stablehlo") / "model"
    fae("export", "--workdir", finished, "--format", "stablehlo", "--few_steps", 3, "--out", folder)
    return folder


SCRIPT = """
import runpy, sys
for name in ("fae_jax", "flax", "safetensors", "flatbuffers"):
    try:
        __import__(name)
    except ImportError:
        continue
    raise SystemExit(f"{name} is there")
sys.path.insert(0, FOLDER)
sys.argv[1:] = ["--labels", "3,1", "--seed", "4000000000", "--steps", "3", "--out", "few.npz"]
runpy.run_path(FOLDER + "/run.py", run_name="__main__")
import numpy as np
from run import Model
model = Model()
many, one = model.generate([3, 1, 4, 1, 5, 9, 2], seed=4000000000), model.generate([3])
latents = model.encode(many)
np.savez("all.npz", many=many, one=one, latents=latents, decoded=model.decode(latents))
"""


@pytest.mark.slow
def test_jax_and_numpy_alone_give_the_models_images_bit_for_bit(finished: Path, exported: Path, tmp_path: Path):
    site = tmp_path / "site"
    site.mkdir()
    for package in ALONE:
        folder = Path(importlib.import_module(package).__file__).parent
        for each in (folder, folder.with_name(f"{package}.libs")):
            if each.exists():
                (site / each.name).symlink_to(each)
    script = f"import sys; sys.path.append({str(site)!r}); FOLDER = {str(exported)!r}{SCRIPT}"
    command = [sys.executable, "-I", "-S", "-c", script]
    same = environment(XLA_FLAGS=os.environ["XLA_FLAGS"])  # bits are those of one compiler
    done = subprocess.run(command, env=same, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ours = fae_jax.load(finished)
    with np.load(tmp_path / "all.npz") as theirs, np.load(tmp_path / "few.npz") as few:
        images = ours.generate([3, 1, 4, 1, 5, 9, 2], seed=4_000_000_000)  # more than the configured batch of 5
        np.testing.assert_array_equal(theirs["many"], images)
        np.testing.assert_array_equal(theirs["one"], ours.generate([3]))
        np.testing.assert_array_equal(theirs["latents"], ours.encode(images))
        np.testing.assert_array_equal(theirs["decoded"], ours.decode(theirs["latents"]))
        three = ours.generate([3, 1], seed=4_000_000_000, sampler="euler", steps=3)
        np.testing.assert_array_equal(few["images"], to_uint8(three))


@pytest.mark.slow
def test_weights_are_arguments_and_every_platform_is_there(exported: Path):
    about = json.loads((exported / "model.json").read_text())
    few = about["programs"]["generate_3_steps"]
    assert few["steps"] == 3 and few["seconds_per_image"] > 0 and about["generator"]["checkpoint"] == 8
    card = (exported / "README.md").read_text()
    assert f"| generate_3_steps | 3 | {few['bytes'] / 1e6:.2f} |" in card and "| generate | 4 |" in card
    for name, inputs in (("encode", 1), ("decode", 1), ("generate", 3)):
        program = export.deserialize(bytearray((exported / f"{name}.jax").read_bytes()))
        assert program.platforms == PLATFORMS == ("cpu", "cuda", "tpu")
        shapes = []
        for part in about["programs"][name]["reads"]:
            with np.load(exported / f"{part}.npz") as arrays:
                shapes += [arrays[leaf].shape for leaf in arrays.files]
        assert sorted(shapes) == sorted(aval.shape for aval in program.in_avals[:-inputs])


def test_an_encoder_that_pools_is_traced_for_any_batch():
    config = ViTConfig(patch=8, width=8, depth=1, heads=2, hidden=8, cls_token=False, pooling="attention")
    module = ViT(config, kernel="cpu", scan=True)
    (b,) = export.symbolic_shape("b")
    images = jax.ShapeDtypeStruct((b, 16, 16, 3), jax.numpy.float32)
    params = jax.eval_shape(module.init, jax.random.key(0), images)
    made = export.export(jax.jit(module.apply), platforms=PLATFORMS)(params, images).out_avals
    assert [str(aval.shape[0]) for aval in made] == ["b", "b"]


@pytest.fixture
def described(tmp_path: Path) -> Path:
    """A folder that has a description alone."""
    about = {"format": FORMAT, "labels": 10, "programs": {"generate": {"reads": []}}, "batch": 4}
    (tmp_path / "model.json").write_text(json.dumps(about))
    return tmp_path


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"labels": [11]}, r"labels must be a list of numbers from 0 to 10, got \[11\]"),
        ({"labels": []}, "labels must be a list"),
        ({"labels": [1], "seed": -1}, "seed must be from 0 to 4294967295, got -1"),
        ({"labels": [1], "steps": 5}, "has no program generate_5_steps; it has generate"),
    ],
)
def test_what_the_reader_refuses(described: Path, request_: dict, message: str):
    with pytest.raises(ValueError, match=message):
        Model(described).generate(**request_)


def test_another_versions_folder_is_refused(described: Path):
    about = json.loads((described / "model.json").read_text())
    (described / "model.json").write_text(json.dumps({**about, "format": FORMAT + 1}))
    with pytest.raises(ValueError, match=f"has format {FORMAT + 1}, and this run.py reads {FORMAT}"):
        Model(described)


def test_what_cannot_be_exported_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model = FAE(Shapes(check(load_config(str(TINY))), make_mesh()))
    prompt = {"tokens": np.zeros((1, 8, 4), np.float32), "mask": np.ones((1, 8), bool)}
    model.__dict__["generator"] = SimpleNamespace(condition=SimpleNamespace(none=lambda count: prompt))
    with pytest.raises(ValueError, match="told more than a class cannot be exported as stablehlo: use bundle"):
        programs(model, (None,))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="needs the package flatbuffers: pip install flatbuffers"):
        write_stablehlo(model.parts, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_option_of_another_format_is_refused():
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    with pytest.raises(ValueError, match="the format bundle has no --few_steps: leave it out"):
        run(parser.parse_args(["--workdir", "W", "--few_steps", "3", "--out", "O"]))
