"""The FAE encoder: its count, its equations, its posterior."""

import jax
import jax.numpy as jnp
import network_reference as reference
import numpy as np
import pytest
from network_reference import assert_close, parameters

from fae_jax.autoencoder.compressors import Compressor
from fae_jax.autoencoder.posterior import Posterior, PosteriorKind


def count(module, *arguments):
    shapes = jax.eval_shape(module.init, jax.random.key(0), *arguments)
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def features(b=2, n=6, d=10, seed=0):
    return np.random.default_rng(seed).normal(size=(b, n, d)).astype(np.float32)


def test_parameters_of_the_paper():
    assert count(Compressor(32, 24, 256), jnp.zeros((1, 256, 1536))) == 38_166_592


@pytest.mark.parametrize(
    ("activation", "function"),
    [
        ("silu", reference.silu),
        ("gelu", reference.gelu),
        ("gelu_tanh", reference.gelu_tanh),
        ("none", lambda x: x),
    ],
)
def test_equations(activation, function):
    x = features()
    module = Compressor(latent_width=3, heads=2, head_width=8, activation=activation)
    params = parameters(module, jnp.asarray(x))
    mean, log_variance = jax.jit(module.apply)({"params": params}, jnp.asarray(x))
    want_mean, want_log_variance = reference.compressor(params, x.astype(np.float64), 2, function)
    assert_close(mean, want_mean)
    assert_close(log_variance, want_log_variance)


def test_log_variance_is_clipped_and_mean_is_not():
    x = features()
    module = Compressor(3, 2, 8, posterior=PosteriorKind(log_variance_range=(-0.1, 0.2)))
    params = parameters(module, jnp.asarray(x), spread=1.0)
    mean, log_variance = jax.jit(module.apply)({"params": params}, jnp.asarray(x))
    wide = jax.jit(Compressor(3, 2, 8).apply)({"params": params}, jnp.asarray(x))
    np.testing.assert_array_equal(mean, wide.mean)
    np.testing.assert_allclose(log_variance, np.clip(wide.log_variance, -0.1, 0.2))
    assert (np.asarray(log_variance) == np.float32(-0.1)).any()


def test_one_image_does_not_see_another_and_tokens_have_no_order():
    x = jnp.asarray(features())
    module = Compressor(3, 2, 8)
    params = {"params": parameters(module, x)}
    apply = jax.jit(module.apply)
    both = apply(params, x)
    np.testing.assert_allclose(apply(params, x[1:]).mean, both.mean[1:], atol=1e-5)
    order = jnp.asarray([3, 0, 5, 1, 4, 2])
    np.testing.assert_allclose(apply(params, x[:, order]).mean, both.mean[:, order], atol=1e-5)
    assert np.abs(np.asarray(apply(params, x.at[0, 0].add(1.0)).mean - both.mean))[0, 1:].max() > 1e-3


def test_sample_has_the_posteriors_moments_and_one_key_each():
    mean = jnp.broadcast_to(jnp.asarray([-1.0, 2.0]), (3, 4000, 2))
    posterior = Posterior(mean, jnp.broadcast_to(jnp.log(jnp.asarray([0.25, 4.0])), mean.shape))
    keys = jax.random.split(jax.random.key(0), 3)
    z = posterior.sample(keys)
    np.testing.assert_allclose(z.mean((0, 1)), [-1.0, 2.0], atol=0.06)
    np.testing.assert_allclose(z.std((0, 1)), [0.5, 2.0], rtol=0.03)
    one = Posterior(posterior.mean[2:], posterior.log_variance[2:]).sample(keys[2:])
    np.testing.assert_array_equal(one, z[2:])
    noise = ((z - mean) / jnp.asarray([0.5, 2.0])).reshape(3, -1)
    assert np.abs(np.corrcoef(noise) - np.eye(3)).max() < 0.05


def test_bfloat16_is_close_and_answers_in_float32():
    x = jnp.asarray(features(d=32))
    params = {"params": parameters(Compressor(3, 2, 8), x)}
    exact = jax.jit(Compressor(3, 2, 8).apply)(params, x)
    half = jax.jit(Compressor(3, 2, 8, dtype=jnp.bfloat16).apply)(params, x)
    assert not np.array_equal(half.mean, half.mean.astype(jnp.bfloat16))  # its last product is in float32
    assert half.mean.dtype == half.log_variance.dtype == jnp.float32
    assert_close(half.mean, exact.mean, 0.03)
    assert np.abs(np.asarray(half.mean - exact.mean)).max() > 0


def test_unknown_activation():
    with pytest.raises(ValueError, match="activation 'swish' is unknown; choose one of silu, gelu, gelu_tanh"):
        Compressor(3, 2, 8, activation="swish").init(jax.random.key(0), jnp.asarray(features()))
