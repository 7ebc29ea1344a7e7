"""A generator that starts from a published one."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from network_reference import randomise
from published_checkpoint import checkpoint
from running import TINY, fae, record, saved_state

from fae_jax.config import check, load_config, with_values
from fae_jax.generators.published import Published
from fae_jax.parallel.mesh import make_mesh
from fae_jax.parts import generator_of
from fae_jax.stages import generator as stage
from fae_jax.stages.outline import Shapes
from fae_jax.training.state import create_state
from fae_jax.weights import open_tensors, write_tensors


@pytest.fixture
def shapes() -> Shapes:
    return Shapes(check(with_values(load_config(str(TINY)), {"generator.init_from": "/theirs"})), make_mesh())


def offer(monkeypatch: pytest.MonkeyPatch, generator) -> Published:
    """Makes a generator with random parameters the published one."""
    like = jax.eval_shape(generator.init, jax.random.key(0))
    published = Published(generator, randomise(like), 1)
    monkeypatch.setattr(stage, "read_published", lambda path, heads: published)
    return published


def test_training_begins_with_its_parameters_and_their_average(shapes: Shapes, monkeypatch: pytest.MonkeyPatch):
    published = offer(monkeypatch, generator_of(shapes))
    state = create_state(stage.players(shapes), 0, shapes.mesh, stage.given(shapes))
    jax.tree.map(np.testing.assert_array_equal, state.players["generator"].params, published.params)
    averages = [leaf for leaf in jax.tree.leaves(state.players["generator"].optimizer) if leaf.shape == (11, 16)]
    table = published.params["label"]["table"]
    assert sum(np.array_equal(leaf, table) for leaf in averages) == len(shapes.config.generator.ema)
    assert stage.given(Shapes(check(load_config(str(TINY))), shapes.mesh)) == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"network": {"heads": 4, "rotary": False}},
            "/theirs is another network: in generator.flow_matching.dit set heads=4, rotary=False",
        ),
        ({"network": {"classes": 7}}, "is over 16 tokens, 4 channels, 7 classes, and this experiment over 16, 4, 10"),
        ({"shape": (16, 5)}, "is over 16 tokens, 5 channels, 10 classes, and this experiment over 16, 4, 10"),
    ],
)
def test_another_network_is_refused(shapes: Shapes, monkeypatch: pytest.MonkeyPatch, changes: dict, message: str):
    generator = generator_of(shapes)
    network = generator.network.clone(**changes.pop("network", {}))
    offer(monkeypatch, dataclasses.replace(generator, network=network, **changes))
    with pytest.raises(ValueError, match=message):
        stage.given(shapes)


@pytest.mark.parametrize("kind", ["mean_flow", "starflow"])
def test_another_kind_is_refused_before_the_file_is_read(kind: str):
    fields = {"generator.init_from": "/not/there", "generator.kind": kind}
    config = check(with_values(load_config(str(TINY)), fields))
    with pytest.raises(
        ValueError, match=f"^field generator.init_from=/not/there starts a dit .*, and this .* {kind}"
    ):
        stage.given(Shapes(config, make_mesh()))


@pytest.mark.slow
def test_a_run_starts_from_the_file_and_goes_on_without_it(finished: Path, tmp_path: Path):
    workdir, file = tmp_path / "run", tmp_path / "theirs" / "model.safetensors"
    state = checkpoint(patch=1, channels=4, swiglu=True, rope=True, rms=True, width=16, heads=2, side=4, depth=1)
    write_tensors(file, state)
    shutil.copytree(finished, workdir)
    shutil.rmtree(workdir / "generator")
    config = json.loads((workdir / "config.json").read_text())
    config["generator"]["init_from"] = str(file)
    (workdir / "config.json").write_text(json.dumps(config))
    _, err = fae("train", "generator", "--workdir", workdir, code=2)
    assert "theirs/model.safetensors is another network: in generator.flow_matching.dit set hidden=64" in err
    config["generator"]["flow_matching"]["dit"]["hidden"] = 64
    (workdir / "config.json").write_text(json.dumps(config))
    fae("train", "generator", "--workdir", workdir, "--config.checkpoint.pause_at=2", code=1)
    assert record(workdir, "generator").facts["init_from"] == open_tensors(file).hash()
    shutil.rmtree(file.parent)
    fae("train", "generator", "--workdir", workdir, "--config.checkpoint.pause_at=0")
    table = saved_state(workdir, "generator")["8['players']['generator']['params']['label']['table']"]
    moved = np.abs(table - state["y_embedder.embedding_table.weight"])
    assert 0 < moved.max() < 8 * 0.011  # eight steps at 0.01
