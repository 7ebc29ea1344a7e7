"""LPIPS: its weights' names and sizes, how they come, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fae_jax.extractors import load_extractor
from fae_jax.extractors.lpips import ALEX, LPIPS, SQUEEZE, VGG
from fae_jax.weights import flatten


def published(network, seed=0):
    """Random tensors in the names and shapes of the published files."""
    rng = np.random.default_rng(seed)
    return {
        name: (rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]) or 1)).astype(np.float32)
        for name, shape in network._expected().items()
    }


@pytest.mark.parametrize(
    ("kind", "count"), [(VGG, 14_714_688 + 1472), (ALEX, 2_469_696 + 1152), (SQUEEZE, 722_496 + 2240)]
)
def test_trunks_have_the_published_number_of_parameters(kind: LPIPS, count: int):
    """torchvision's without their classifiers, and the linear layers."""
    assert sum(np.prod(leaf.shape) for leaf in flatten(kind.network.shapes).values()) == count


def test_equal_images_have_distance_and_slope_0_where_features_vanish_too(tmp_path):
    params = SQUEEZE.network.load(str(saved(tmp_path)))
    black = jnp.full((1, 32, 32, 3), -1.0)
    params["trunk"]["0"] = jax.tree.map(jnp.zeros_like, params["trunk"]["0"])
    distance, slope = jax.jit(jax.value_and_grad(lambda x: SQUEEZE.distance(params, x, black + 0)[0]))(black)
    assert float(distance) == 0 and np.isfinite(slope).all()


def saved(folder):
    np.savez(folder / "squeeze.npz", **published(SQUEEZE.network))
    return folder / "squeeze.npz"


def test_weights_are_kept_file_by_file_and_missing_ones_named(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tensors = published(SQUEEZE.network)
    linear = {name: array for name, array in tensors.items() if name.startswith("lin")}
    np.savez(tmp_path / "linear.npz", **linear)
    trunk = {name: array for name, array in tensors.items() if name not in linear}
    np.savez(tmp_path / "trunk.npz", **trunk, **{"classifier.1.weight": np.zeros((5, 512, 1, 1), np.float32)})
    with pytest.raises(FileNotFoundError, match="bring them: fae weights pull lpips_squeeze"):
        SQUEEZE.network.check()
    SQUEEZE.pull(tmp_path / "linear.npz")
    with pytest.raises(FileNotFoundError, match="bring them: fae weights pull lpips_squeeze"):
        SQUEEZE.network.check()
    SQUEEZE.pull(tmp_path / "trunk.npz")
    ours = load_extractor("lpips_squeeze")
    assert ours.weights_hash == load_extractor("lpips_squeeze", str(saved(tmp_path))).weights_hash
    np.testing.assert_array_equal(ours.params["linear"]["6"], tensors["lin6.model.1.weight"].ravel())
    with pytest.raises(
        ValueError, match="holds no weights of 'lpips_vgg': features.0.weight is .32, 3, 3, 3. instead"
    ):
        np.savez(tmp_path / "wrong.npz", **{"features.0.weight": np.zeros((32, 3, 3, 3), np.float32)})
        VGG.pull(tmp_path / "wrong.npz")
    with pytest.raises(ValueError, match="does not hold the weights this network needs"):
        VGG.network.load(str(tmp_path / "trunk.npz"))
    with pytest.raises(FileNotFoundError, match="nowhere.npz"):
        VGG.network.load(str(tmp_path / "nowhere.npz"))
