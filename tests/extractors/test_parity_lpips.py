"""LPIPS against its statement in PyTorch functions, and against the `lpips` package where that is installed."""

import importlib.util
import sys
import types
from typing import Any

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")
from lpips_reference import distance, linear_layers, random_weights, real_root, real_squeeze, real_vgg  # noqa: E402

from fae_jax.extractors.lpips import LPIPS  # noqa: E402

pytestmark = pytest.mark.parity


def ours_and_theirs(trunk, weights, folder, size):
    rng, kind = np.random.default_rng(1), LPIPS(trunk=trunk)
    np.savez(folder / "weights.npz", **weights)
    params = kind.network.load(str(folder / "weights.npz"))
    a = rng.uniform(-1, 1, (2, *size, 3)).astype(np.float32)
    b = np.clip(a + rng.normal(0, 0.3, a.shape), -1, 1).astype(np.float32)

    def total(a, b):
        each = kind.distance(params, a, b)
        return each.sum(), each

    (_, each), slope = jax.jit(jax.value_and_grad(total, has_aux=True))(jax.numpy.asarray(a), jax.numpy.asarray(b))
    tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in weights.items()}
    first = torch.from_numpy(a).requires_grad_()
    theirs = distance(trunk, tensors, first, torch.from_numpy(b))
    theirs.sum().backward()
    return (np.asarray(each), np.asarray(slope)), (theirs.detach().numpy(), first.grad.numpy())


@pytest.mark.parametrize("trunk", ["vgg", "alex", "squeeze"])
def test_distances_and_their_slopes_on_random_weights(trunk, tmp_path):
    weights = random_weights(LPIPS(trunk=trunk).network._expected())
    (ours, slope), (theirs, gradient) = ours_and_theirs(trunk, weights, tmp_path, (64, 71))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)
    assert np.abs(slope - gradient).max() < 1e-4 * np.abs(gradient).max()


@pytest.mark.real_data
@pytest.mark.skipif(real_root() is None, reason="FAE_REAL_DATA is not set")
@pytest.mark.parametrize(("trunk", "read"), [("vgg", real_vgg), ("squeeze", real_squeeze)])
def test_distances_on_real_trunks_and_linear_layers(trunk, read, tmp_path):
    root = real_root()
    weights = {**read(root), **linear_layers(root, trunk)}
    (ours, _), (theirs, _) = ours_and_theirs(trunk, weights, tmp_path, (64, 64))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)
    assert (ours > 0.02).all()


def test_it_is_that_of_the_lpips_package(tmp_path, monkeypatch):
    """Whose trunks torchvision brings; here a stand-in gives it the same random ones."""
    if importlib.util.find_spec("torchvision") is None:
        stub: Any = types.ModuleType("torchvision")
        stub.models = types.ModuleType("torchvision.models")
        monkeypatch.setitem(sys.modules, "torchvision", stub)
    package = pytest.importorskip("lpips")
    from lpips_reference import layers

    weights = random_weights(LPIPS(trunk="alex").network._expected())
    tensors = {name: torch.from_numpy(array) for name, array in weights.items()}
    trunk = types.SimpleNamespace(forward=lambda x: layers("alex", tensors, x))
    monkeypatch.setattr(package.pn, "alexnet", lambda **_: trunk)
    theirs = package.LPIPS(net="alex", pretrained=False, lpips=True, verbose=False)
    for place, layer in enumerate(theirs.lins):
        layer.model[-1].weight.data = tensors[f"lin{place}.model.1.weight"]
    theirs.eval()
    rng = np.random.default_rng(1)
    a = rng.uniform(-1, 1, (2, 64, 71, 3)).astype(np.float32)
    b = np.clip(a + rng.normal(0, 0.3, a.shape), -1, 1).astype(np.float32)
    with torch.no_grad():
        want = theirs(*(torch.from_numpy(x).permute(0, 3, 1, 2) for x in (a, b))).ravel()
    np.savez(tmp_path / "weights.npz", **weights)
    kind = LPIPS(trunk="alex")
    got = jax.jit(kind.distance)(kind.network.load(str(tmp_path / "weights.npz")), a, b)
    np.testing.assert_allclose(got, want, rtol=1e-4)
