"""Steps that each sample chooses for itself: errors within what is tolerated, evaluations counted, no neighbours."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gaussian_reference import Mixture
from scipy.integrate import solve_ivp
from test_samplers import GAUSSIAN, TWO_MODES, velocity_of

from fae_jax.diffusion.adaptive import Dopri5
from fae_jax.diffusion.samplers import initial_noise, sample_keys


def drawn(law: Mixture, rtol: float, keys: jax.Array, shape: tuple[int, int] = (2, 2)):
    """Noise, latents, evaluations of each, and how often the velocity was really asked."""
    calls, velocity = [], velocity_of(law)

    def asked(z: jax.Array, t: jax.Array) -> jax.Array:
        jax.debug.callback(lambda: calls.append(1))
        return velocity(z, t)

    noise = initial_noise(keys, shape)
    run = jax.jit(lambda noise: Dopri5(rtol=rtol, atol=rtol / 10).counted(asked, noise, jnp.ones_like))
    z, count = run(noise)
    jax.effects_barrier()
    return np.asarray(noise), np.asarray(z), np.asarray(count), len(calls)


def test_the_error_falls_with_what_is_tolerated_and_evaluations_are_those_made():
    """For Gaussian data the ODE carries noise x to m + S x exactly."""
    keys, errors, counts = sample_keys(1, jnp.arange(4)), [], []
    for rtol in (1e-3, 1e-6):
        noise, z, count, calls = drawn(GAUSSIAN, rtol, keys)
        assert count.max() == calls and ((count - 1) % 6 == 0).all()
        errors.append(np.abs(z - (1.5 + 0.5 * noise)).max())
        counts.append(count.mean())
    assert errors[0] < 1e-3 and errors[1] < 1e-5
    assert counts[0] < counts[1] < 100


@pytest.mark.slow
def test_each_sample_is_that_of_scipy_and_feels_no_neighbour():
    keys = sample_keys(2, jnp.arange(5))
    noise, z, count, _ = drawn(TWO_MODES, 1e-4, keys)
    assert len(set(count)) > 1
    for i, first in enumerate(noise):

        def rate(t: float, z: np.ndarray) -> np.ndarray:
            return TWO_MODES.velocity(z, t)

        theirs = solve_ivp(rate, (1, 0), first.reshape(-1), method="RK45", rtol=1e-4, atol=1e-5, first_step=0.05)
        np.testing.assert_allclose(z[i].reshape(-1), theirs.y[:, -1], atol=1e-3)
        assert count[i] == pytest.approx(theirs.nfev, rel=0.15)  # it does not grow right after a step refused
    _, alone, count_alone, calls = drawn(TWO_MODES, 1e-4, keys[3:4])
    np.testing.assert_allclose(alone[0], z[3], atol=1e-5)
    assert count_alone[0] == count[3] == calls


def test_what_is_no_number_ends():
    z, count = Dopri5().counted(lambda z, t: z * jnp.nan, jnp.ones((1, 1, 1)), jnp.ones_like)
    assert np.isnan(z).all() and count[0] < 50
