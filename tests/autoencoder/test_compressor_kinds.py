"""The ablation's compressors and decoders: counts, equations, and what each kind passes over."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import network_reference as reference
import numpy as np
import pytest
from network_reference import assert_close, depth_of, layer, parameters

from fae_jax.autoencoder.compressors import LinearCompressor, TransformerCompressor
from fae_jax.autoencoder.decoders import FeatureDecoder
from fae_jax.autoencoder.kinds import make_compressor, make_feature_decoder
from fae_jax.autoencoder.posterior import PosteriorKind
from fae_jax.generators.networks.dit import DiT
from fae_jax.nn.compute import ComputeSection

GRID = (2, 3)
COMPUTE = ComputeSection(dtype="float32", scan=False)


def compressor(kind, features=16, grid=GRID, latent_width=3, **changes):
    sizes = {
        "attention": {"heads": 2, "head_width": 8, "activation": "silu"},
        "transformer": {"depth": 2, "width": 0, "heads": 2, "hidden": 10},
        "pooling": {"patch": 2},
    }
    own = {name: SimpleNamespace(**{**values, **changes}) for name, values in sizes.items()}
    section = SimpleNamespace(kind=kind, latent_width=latent_width, posterior=PosteriorKind(), **own)
    return make_compressor(section, grid=grid, width=features, compute=COMPUTE)


def decoder(kind="transformer", features=16, **changes):
    sizes = {"depth": 2, "width": 0, "heads": 2, "hidden": 10, "last_norm": False}
    section = SimpleNamespace(kind=kind, transformer=SimpleNamespace(**{**sizes, **changes}))
    return make_feature_decoder(section, grid=GRID, width=features, compute=COMPUTE)


def features(b=2, n=6, d=16, seed=0):
    return np.random.default_rng(seed).normal(size=(b, n, d)).astype(np.float32)


def count(module, *arguments):
    shapes = jax.eval_shape(module.init, jax.random.key(0), *arguments)
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def blocks(depth, d, hidden):
    return depth * (2 * d + 3 * d * d + 3 * d + d * d + d + 2 * d * hidden + 2 * hidden + hidden * d + d)


def test_parameters_at_the_papers_width():
    full = {"features": 1536, "latent_width": 32, "heads": 24, "head_width": 256, "hidden": 4096, "grid": (16, 16)}
    x, moments = jnp.zeros((1, 256, 1536)), 1536 * 64 + 64
    assert count(compressor("attention", **full), x) == 38_166_592
    assert count(compressor("linear", **full), x) == moments
    for depth in (4, 6):
        assert count(compressor("transformer", **full, depth=depth), x) == blocks(depth, 1536, 4096) + 1536 + moments
    assert count(compressor("identity", **full), x) == 0


def test_linear_is_one_linear_per_token():
    x = features()
    params = parameters(LinearCompressor(3), jnp.asarray(x))
    mean, log_variance = compressor("linear").apply({"params": params}, jnp.asarray(x))
    want = reference.linear(params["moments"], x.astype(np.float64))
    assert_close(mean, want[..., :3])
    assert_close(log_variance, want[..., 3:])


@pytest.mark.parametrize("width", [0, 8])
def test_transformer_is_the_reference(width):
    x = features()
    module = compressor("transformer", width=width)
    params = parameters(module, jnp.asarray(x))
    mean, log_variance = jax.jit(module.apply)({"params": params}, jnp.asarray(x))
    h = x.astype(np.float64)
    assert ("embed" in params) == bool(width)
    if width:
        h = reference.linear(params["embed"], h)
    for i in range(depth_of(params["blocks"])):
        h = reference.block(layer(params["blocks"]["block"], i), h, 2, norm="rms", grid=GRID)
    want = reference.linear(params["moments"], reference.rms_norm(params["last_norm"], h))
    assert_close(np.concatenate([mean, log_variance], -1), want)


def test_pooling_is_one_linear_of_four_tokens_laid_out_as_a_patch_of_the_generator():
    x = features(n=8)
    module = compressor("pooling", grid=(2, 4))
    params = parameters(module, jnp.asarray(x))
    mean, log_variance = module.apply({"params": params}, jnp.asarray(x))
    for column in (0, 1):
        four = [2 * column, 2 * column + 1, 4 + 2 * column, 5 + 2 * column]
        want = reference.linear(params["moments"], x[:, four].reshape(2, -1).astype(np.float64))
        assert_close(mean[:, four].reshape(2, -1), want[:, :12])
        assert_close(log_variance[:, four].reshape(2, -1), want[:, 12:])
    tokens = DiT((2, 4), 0, width=8, depth=1, heads=1, hidden=8, patch=2)._patches(mean)
    np.testing.assert_array_equal(tokens[:, 1], mean[:, [2, 3, 6, 7]].reshape(2, -1))
    with pytest.raises(ValueError, match="compressor.pooling.patch=2 must divide the grid of features, 2×3"):
        compressor("pooling")


def test_identity_gives_the_features_back_through_both_halves():
    x = jnp.asarray(features())
    posterior = compressor("identity", latent_width=3).apply({}, x)
    np.testing.assert_array_equal(posterior.mean, x)
    sampled = posterior.sample(jax.random.split(jax.random.key(0), 2))
    np.testing.assert_allclose(decoder("identity").apply({}, sampled), x, atol=1e-5)
    assert compressor("identity", latent_width=3).latent_width == 16


@pytest.mark.parametrize("last_norm", [True, False])
def test_a_decoder_of_another_width_ends_with_a_linear(last_norm):
    z = features(d=3)
    module = decoder(width=8, last_norm=last_norm)
    params = parameters(module, jnp.asarray(z))
    got = jax.jit(module.apply)({"params": params}, jnp.asarray(z))
    inner = reference.feature_decoder({k: v for k, v in params.items() if k != "last_norm"}, z, 2, GRID)
    want = reference.linear(params["to_features"], inner)
    assert_close(got, reference.rms_norm(params["last_norm"], want) if last_norm else want)
    assert got.shape == (2, 6, 16)


def test_a_width_of_0_or_of_the_features_is_the_papers_decoder():
    z = jnp.asarray(features(d=3))
    assert count(decoder(width=16), z) == count(decoder(), z) == count(FeatureDecoder(GRID, 16, 2, 2, 10, False), z)
    whole = FeatureDecoder((16, 16), 1536, depth=6, heads=24, hidden=4096, last_norm=True)
    assert count(whole, jnp.zeros((1, 256, 32))) == 170_428_416


def test_refusals():
    with pytest.raises(ValueError, match="'conv' is none of the compressors; choose one of attention, linear"):
        compressor("conv")
    with pytest.raises(
        ValueError, match="'conv' is none of the feature decoders; choose one of transformer, identity"
    ):
        decoder("conv")
    with pytest.raises(ValueError, match="compressor.transformer.heads=5 must divide the width of its blocks, 16"):
        compressor("transformer", heads=5)
    with pytest.raises(ValueError, match="feature_decoder.transformer.heads=5 must divide its width 8"):
        decoder(heads=5, width=8)
    with pytest.raises(ValueError, match="got 5 tokens where the grid is 2×3 = 6"):
        TransformerCompressor(3, GRID, 1, 16, 2, 8).init(jax.random.key(0), jnp.asarray(features(n=5)))
