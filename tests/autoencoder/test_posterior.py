"""What each kind of posterior does with the numbers a compressor gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from network_reference import parameters

from fae_jax.autoencoder.compressors import LinearCompressor
from fae_jax.autoencoder.posterior import PosteriorKind
from fae_jax.section import validate


def say(kind, scale=1.0, **fields):
    """The linear layer's numbers (b, n, k), and the posterior of that kind."""
    module = LinearCompressor(3, PosteriorKind(kind=kind, **fields))
    x = scale * np.random.default_rng(0).normal(size=(2, 5, 7)).astype(np.float32)
    params = parameters(module, jnp.asarray(x))
    numbers = x.astype(np.float64) @ params["moments"]["kernel"] + params["moments"]["bias"]
    return numbers, module.apply({"params": params}, jnp.asarray(x))


def test_gaussian_has_two_numbers_a_channel():
    numbers, posterior = say("gaussian", log_variance_range=(-0.05, 0.05))
    np.testing.assert_allclose(posterior.mean, numbers[..., :3], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(posterior.log_variance, np.clip(numbers[..., 3:], -0.05, 0.05), rtol=1e-4, atol=1e-5)


def test_fixed_variance_is_the_same_everywhere():
    numbers, posterior = say("fixed_variance", sigma=0.2)
    np.testing.assert_allclose(posterior.mean, numbers, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.exp(posterior.log_variance), 0.04, rtol=1e-6)
    noise = posterior.sample(jax.random.split(jax.random.key(0), 2)) - posterior.mean
    assert 0.1 < float(noise.std()) < 0.3


@pytest.mark.parametrize("kind", ["rms", "sphere"])
def test_bounded_latents_have_unit_energy_and_no_noise(kind):
    numbers, posterior = say(kind)
    np.testing.assert_allclose((posterior.mean**2).mean(-1), 1.0, rtol=1e-3)
    unit = numbers / np.linalg.norm(numbers, axis=-1, keepdims=True)
    np.testing.assert_allclose(posterior.mean, np.sqrt(3) * unit, rtol=1e-3, atol=1e-4)
    again = posterior.sample(jax.random.split(jax.random.key(0), 2))
    np.testing.assert_allclose(again, posterior.mean, atol=1e-5)


def test_only_on_the_sphere_is_a_small_token_drawn_out():
    moments = jnp.full((1, 1, 4), 1e-4)

    class Numbers(LinearCompressor):
        """Gives `moments` whatever it is shown."""

    params = {"moments": {"kernel": jnp.zeros((2, 4)), "bias": moments[0, 0]}}
    energies = {}
    for kind in ("rms", "sphere"):
        posterior = Numbers(4, PosteriorKind(kind=kind)).apply({"params": params}, jnp.ones((1, 1, 2)))
        energies[kind] = float((posterior.mean**2).mean())
    assert energies["rms"] < 0.02 and energies["sphere"] == pytest.approx(1.0, rel=1e-3)


def test_only_gaussians_have_a_divergence():
    kinds = {
        kind: PosteriorKind(kind=kind).has_divergence for kind in ("gaussian", "fixed_variance", "rms", "sphere")
    }
    assert kinds == {"gaussian": True, "fixed_variance": True, "rms": False, "sphere": False}
    with pytest.raises(ValueError, match="posterior.kind must be one of gaussian, fixed_variance, .*, got 'flat'"):
        validate(PosteriorKind(kind="flat"), "posterior")
