import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fae_jax.encoders import create, names, small
from fae_jax.encoders.vit import ViT, ViTConfig
from fae_jax.weights import load_tree, save_tree

CONFIG = ViTConfig(patch=8, width=128, depth=4, heads=4, hidden=512, table_grid=(4, 4), classifier="cls_mean")


@pytest.fixture
def trained(tmp_path, fresh):
    config, module, params = fresh
    written = small.save(tmp_path / "encoder", config, params, {"data": "digits", "steps": 3})
    return tmp_path / "encoder", module, params, written


@pytest.fixture(scope="module")
def fresh():
    config = dataclasses.replace(CONFIG, classes=10, width=32, depth=2, hidden=64)
    module = ViT(config)
    params = jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]
    return config, module, params


def test_round_trip(trained):
    folder, module, params, written = trained
    encoder = create("vit", weights=str(folder), image_size=32)
    images = jax.random.uniform(jax.random.key(1), (3, 32, 32, 3), minval=-1, maxval=1)
    want = module.apply({"params": params}, images)
    np.testing.assert_allclose(encoder.features(encoder.params, images), want.patches, atol=1e-5)
    assert (encoder.grid, encoder.width, encoder.name) == ((4, 4), 32, "vit")
    assert encoder.weights_hash == written
    assert encoder.settings["training"] == {"data": "digits", "steps": 3}
    logits = encoder.head(encoder.params, want.patches, want.cls)
    np.testing.assert_allclose(
        logits, module.apply({"params": params}, want.patches, want.cls, method="classify"), atol=1e-5
    )


def test_features_pass_no_gradient(trained):
    encoder = create("vit", weights=str(trained[0]), image_size=32)
    images = jnp.ones((1, 32, 32, 3))
    gradient = jax.grad(lambda images: encoder.features(encoder.params, images).sum())(images)
    assert not np.any(gradient)


def test_another_image_size_interpolates(trained):
    encoder = create("vit", weights=str(trained[0]), image_size=48)
    assert encoder.grid == (6, 6)
    assert encoder.features(encoder.params, jnp.zeros((1, 48, 48, 3))).shape == (1, 36, 32)


def test_one_changed_value_changes_the_hash(trained):
    folder, _, params, written = trained
    changed = jax.tree.map(np.array, params)
    changed["last_norm"]["bias"][3] += 1e-7
    assert small.save(folder, dataclasses.replace(CONFIG, classes=10), changed, {}) != written


def test_not_trained_yet_names_the_command(tmp_path):
    for weights in (None, str(tmp_path / "nowhere")):
        with pytest.raises(FileNotFoundError, match="fae train encoder --workdir"):
            create("vit", weights=weights, image_size=32)
    with pytest.raises(ValueError, match="33×33"):
        small.save(tmp_path, CONFIG, {}, {})
        create("vit", weights=str(tmp_path), image_size=33)


def test_weights_of_another_network_are_listed(trained):
    folder, _, params, _ = trained
    config = dataclasses.replace(CONFIG, classes=10, width=32, depth=2, hidden=80)
    content = json.loads((folder / "config.json").read_text())
    content["vit"] = dataclasses.asdict(config)
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"feed_forward.hidden.kernel \[2, 32, 64\] instead of \[2, 32, 80\]"):
        create("vit", weights=str(folder), image_size=32)
    tree = load_tree(folder)
    tree["last_norm"].pop("bias")
    tree["stranger"] = np.zeros(2)
    save_tree(folder / "model.safetensors", tree)
    with pytest.raises(ValueError, match="1 missing: last_norm.bias; 1 extra: stranger; .* misshapen"):
        create("vit", weights=str(folder), image_size=32)


def test_the_registry_knows_it():
    assert "vit" in names()
    with pytest.raises(ValueError, match="did you mean 'vit'"):
        create("vti", weights=None, image_size=32)
