"""Feature decoder and pixel decoder: their counts and their equations."""

import jax
import jax.numpy as jnp
import network_reference as reference
import numpy as np
import pytest
from network_reference import assert_close, parameters

from fae_jax.autoencoder.decoders import FeatureDecoder, PixelDecoder

GRID = (2, 3)


def count(module, *arguments):
    shapes = jax.eval_shape(module.init, jax.random.key(0), *arguments)
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def tokens(channels, b=2, n=6, seed=0):
    return np.random.default_rng(seed).normal(size=(b, n, channels)).astype(np.float32)


def small_features(**changes):
    fields = {"grid": GRID, "width": 16, "depth": 2, "heads": 2, "hidden": 20, "last_norm": True}
    return FeatureDecoder(**{**fields, **changes})


def small_pixels(**changes):
    fields = {"grid": GRID, "patch": 4, "width": 16, "depth": 2, "heads": 2, "hidden": 20}
    return PixelDecoder(**{**fields, **changes})


@pytest.mark.parametrize(("last_norm", "parameters"), [(True, 170_428_416), (False, 170_426_880)])
def test_feature_decoder_of_the_paper(last_norm, parameters):
    module = FeatureDecoder((16, 16), 1536, depth=6, heads=24, hidden=4096, last_norm=last_norm)
    assert count(module, jnp.zeros((1, 256, 32))) == parameters


def test_pixel_decoder_of_the_paper():
    module = PixelDecoder((16, 16), 16, width=1024, depth=24, heads=16, hidden=2736)
    assert count(module, jnp.zeros((1, 256, 1536))) == 305_360_896
    shapes = jax.eval_shape(lambda x: module.init_with_output(jax.random.key(0), x)[0], jnp.zeros((1, 256, 1536)))
    assert shapes.shape == (1, 256, 256, 3)


@pytest.mark.parametrize("last_norm", [True, False])
@pytest.mark.parametrize("scan", [True, False])
def test_feature_decoder_is_the_reference(last_norm, scan):
    z = tokens(5)
    module = small_features(last_norm=last_norm, scan=scan)
    params = parameters(module, jnp.asarray(z))
    got = jax.jit(module.apply)({"params": params}, jnp.asarray(z))
    assert_close(got, reference.feature_decoder(params, z.astype(np.float64), 2, GRID))


def test_last_norm_fixes_every_tokens_energy():
    z = jnp.asarray(tokens(5))
    with_norm = small_features()
    params = parameters(with_norm, z)
    params["last_norm"]["scale"][:] = 1.0
    out = jax.jit(with_norm.apply)({"params": params}, 30 * z)
    np.testing.assert_allclose((out**2).mean(-1), 1.0, rtol=1e-3)


@pytest.mark.parametrize("remat", ["none", "full"])
def test_pixel_decoder_is_the_reference(remat):
    x = tokens(7)
    module = small_pixels(remat=remat)
    params = parameters(module, jnp.asarray(x))
    got = jax.jit(module.apply)({"params": params}, jnp.asarray(x))
    assert got.shape == (2, 8, 12, 3)
    assert_close(got, reference.pixel_decoder(params, x.astype(np.float64), 2, GRID, 4))


@pytest.mark.parametrize("module", [small_features, small_pixels])
def test_bfloat16_is_close_and_answers_in_float32(module):
    x = jnp.asarray(tokens(7))
    params = {"params": parameters(module(), x, spread=0.1)}
    out = jax.jit(module(dtype=jnp.bfloat16).apply)(params, x)
    assert out.dtype == jnp.float32
    assert not np.array_equal(out, out.astype(jnp.bfloat16))  # the last step is in float32
    assert_close(out, jax.jit(module().apply)(params, x), 0.04)


@pytest.mark.parametrize("module", [small_features, small_pixels])
def test_wrong_shapes_are_refused(module):
    with pytest.raises(ValueError, match="got 5 tokens where the grid is 2×3 = 6"):
        module().init(jax.random.key(0), jnp.asarray(tokens(7, n=5)))
    with pytest.raises(ValueError, match="a width of 16 cannot be split into 3 heads"):
        module(heads=3).init(jax.random.key(0), jnp.asarray(tokens(7)))
