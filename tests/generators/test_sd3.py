"""Weights of an MMDiT as SD3's transformer has them: there and back, from `generator.init_from`, and what is refused.
Against diffusers itself: tests/generators/networks/test_parity_mmdit.py."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from network_reference import randomise

from fae_jax.conditions.label import ClassLabel
from fae_jax.config import check, load_config, with_values
from fae_jax.generators.flow_matching import FlowMatching
from fae_jax.generators.networks.mmdit import MMDiT
from fae_jax.generators.sd3 import OPTIONS, TABLE, read_sd3, to_sd3
from fae_jax.parallel.mesh import make_mesh
from fae_jax.stages import generator as stage
from fae_jax.stages.outline import Shapes
from fae_jax.weights import write_tensors

FIELDS = {"width": 16, "depth": 3, "heads": 2, "hidden": 64, "qk_norm": True, **OPTIONS}
TINY = str(Path(__file__).parents[1] / "tiny.py")


class Told(ClassLabel):
    """A text of 5 tokens in a class's place."""

    def none(self, count):
        shapes = {"tokens": (5, 20), "mask": (5,), "pooled": (12,)}
        return {name: jnp.zeros((count, *shape), bool if name == "mask" else float) for name, shape in shapes.items()}


def generator(**fields: Any) -> FlowMatching:
    network = MMDiT(grid=(4, 4), **{**FIELDS, **fields})
    return FlowMatching(network=network, shape=(16, 6), condition=Told(classes=1), train_shift=1.0)


def test_a_run_begins_with_the_very_weights_of_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    params = randomise(jax.eval_shape(generator().init, jax.random.key(0)))
    fields, tensors = to_sd3(generator().network, params)
    assert fields["num_layers"] == 3 and fields["joint_attention_dim"] == 20 and fields["qk_norm"] == "rms_norm"
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    write_tensors(file, tensors)
    (tmp_path / "config.json").write_text(json.dumps(fields))
    monkeypatch.setattr(stage, "generator_of", lambda parts: generator())
    shapes = Shapes(check(with_values(load_config(TINY), {"generator.init_from": str(tmp_path)})), make_mesh())
    jax.tree.map(np.testing.assert_array_equal, stage.given(shapes)["generator"], params)

    def refused(message: str, **changed: Any) -> None:
        with pytest.raises(ValueError, match=message):
            read_sd3(tmp_path, generator(**changed))

    refused("mmdit set norm=layer, time_scale=1000.0", norm="rms", time_scale=1.0)
    refused("mmdit set hidden=64", hidden=32)
    (tmp_path / "config.json").write_text(json.dumps({**fields, "num_attention_heads": 4}))
    refused("has 4 attention heads: set generator.flow_matching.mmdit.heads=4")
    (tmp_path / "config.json").unlink()
    write_tensors(file, {**tensors, TABLE: tensors[TABLE][:, ::-1]})
    refused("is not the table of a grid of 4 by 4")
    write_tensors(file, {name: tensor for name, tensor in tensors.items() if name != "proj_out.bias"})
    refused("proj_out.bias")
    file.rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError):
        read_sd3(tmp_path, generator())


def test_another_network_is_not_written():
    with pytest.raises(ValueError, match="another network: train with rotary=False, hidden=64"):
        to_sd3(generator(rotary=True, hidden=60).network, {})
