"""Samplers against laws whose answers are known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gaussian_reference import Mixture

from fae_jax.diffusion.path import unshift_time
from fae_jax.diffusion.samplers import (
    SAMPLERS,
    AdamsBashforth,
    Euler,
    EulerMaruyama,
    Heun,
    initial_noise,
    make_sampler,
    sample,
    sample_keys,
)

GAUSSIAN = Mixture((1.0,), (1.5,), (0.5,))
TWO_MODES = Mixture((0.3, 0.7), (-2.0, 1.0), (0.2, 0.4))
SMOOTH = Mixture((0.4, 0.6), (-0.6, 0.8), (0.7, 0.9))  # modes that overlap: orders show at few steps


def velocity_of(law):
    """The law's exact velocity in jax, checked below against the reference."""
    weights, means, deviations = (jnp.asarray(v, jnp.float32) for v in (law.weights, law.means, law.deviations))

    def velocity(z, t):
        t = t[:, None, None, None]
        variance = (1 - t) ** 2 * deviations**2 + t**2
        residual = z[..., None] - (1 - t) * means
        share = jax.nn.softmax(jnp.log(weights) - residual**2 / (2 * variance) - jnp.log(variance) / 2, axis=-1)
        return jnp.sum(share * ((t - (1 - t) * deviations**2) * residual / variance - means), axis=-1)

    return velocity


def draw(sampler, law, count, seed=0, shape=(1, 1)):
    run = jax.jit(lambda keys: sample(sampler, velocity_of(law), keys, shape))
    return np.asarray(run(sample_keys(seed, jnp.arange(count))), np.float64)


def reference_ode(law, sampler_times, z, heun):
    """Euler or Heun in float64 NumPy."""
    for t, after in zip(sampler_times[:-1], sampler_times[1:], strict=True):
        v = law.velocity(z, t)
        if heun:
            v = (v + law.velocity(z + (after - t) * v, after)) / 2
        z = z + (after - t) * v
    return z


@pytest.mark.parametrize("law", [GAUSSIAN, TWO_MODES])
@pytest.mark.parametrize("sampler", [Euler(steps=20, shift=0.4), Heun(steps=12, shift=0.7)])
def test_ode_samplers_are_the_numpy_ones(sampler, law):
    keys = sample_keys(5, jnp.arange(6))
    noise = initial_noise(keys, (4, 2))
    n = sampler.steps
    uniform = 1 - np.arange(n + 1) / n
    times = uniform / (sampler.shift + (1 - sampler.shift) * uniform)
    want = reference_ode(law, times, np.asarray(noise, np.float64), isinstance(sampler, Heun))
    np.testing.assert_allclose(sampler(velocity_of(law), noise, keys), want, atol=2e-5)


@pytest.mark.parametrize(("kind", "order", "steps"), [(Euler, 1, (40, 80, 160)), (Heun, 2, (20, 40, 80))])
def test_order_of_convergence(kind, order, steps):
    """For Gaussian data the ODE carries noise x to m + S x exactly."""
    keys = sample_keys(1, jnp.arange(64))
    noise = initial_noise(keys, (1, 1))
    exact = 1.5 + 0.5 * np.asarray(noise, np.float64)
    errors = [np.abs(np.asarray(kind(steps=n)(velocity_of(GAUSSIAN), noise, keys)) - exact).mean() for n in steps]
    measured = np.log2(np.asarray(errors[:-1]) / np.asarray(errors[1:]))
    np.testing.assert_allclose(measured, order, atol=0.2)


@pytest.mark.parametrize("shift", [1.0, 0.4])
@pytest.mark.parametrize("last", ["mean", "data"])
def test_sde_keeps_the_gaussian_law(shift, last):
    z = draw(EulerMaruyama(steps=250, shift=shift, last=last), GAUSSIAN, 4096, shape=(2, 2)).reshape(-1)
    assert z.mean() == pytest.approx(1.5, abs=0.02)
    assert z.std() == pytest.approx(0.5, abs=0.015)


def test_sde_has_the_right_law_on_the_way():
    """A long last step to the predicted data is affine in the state before it, so it shows that state's law."""
    t = 0.5
    z = draw(EulerMaruyama(steps=201, last_step=t, last="data"), GAUSSIAN, 4096, shape=(2, 2)).reshape(-1)
    variance_at_t = (1 - t) ** 2 * 0.25 + t**2
    gain = (1 - t) * 0.25 / variance_at_t
    assert z.mean() == pytest.approx(1.5, abs=0.01)
    assert z.std() / gain == pytest.approx(np.sqrt(variance_at_t), rel=0.02)


def test_sde_keeps_a_two_mode_law():
    z = draw(EulerMaruyama(steps=250, shift=0.4), TWO_MODES, 4096, shape=(2, 2)).reshape(-1)
    left, right = z[z < -0.8], z[z >= -0.8]
    assert len(left) / len(z) == pytest.approx(0.3, abs=0.02)
    assert left.mean() == pytest.approx(-2.0, abs=0.02)
    assert right.mean() == pytest.approx(1.0, abs=0.02)
    assert left.std() == pytest.approx(0.2, rel=0.1)
    assert right.std() == pytest.approx(0.4, rel=0.05)


def test_sde_really_adds_noise_of_each_samples_own():
    keys = sample_keys(0, jnp.arange(512))
    same_start = jnp.full((512, 1, 1), 0.3)
    z = np.asarray(EulerMaruyama(steps=100)(velocity_of(GAUSSIAN), same_start, keys))
    assert z.std() == pytest.approx(0.5, rel=0.15)  # the end has almost forgotten the start
    assert len(np.unique(z)) == 512


def test_last_steps_against_their_formulas():
    """From the same state at t: `mean` gives z − t (v + ε̂) and `data` gives z − t v."""
    keys = sample_keys(2, jnp.arange(3))
    noise = initial_noise(keys, (2, 2))
    first, t = np.asarray(noise, np.float64), 0.3
    draws = jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, 1), (2, 2)))(keys)
    v = TWO_MODES.velocity(first, 1.0)
    state = first + (t - 1) * (v + first) + np.sqrt(2 * (1 - t)) * np.asarray(draws, np.float64)
    v, noise_hat = TWO_MODES.velocity(state, t), TWO_MODES.noise(state, t)
    for last, want in (("mean", state - t * (v + noise_hat)), ("data", state - t * v)):
        got = EulerMaruyama(steps=2, last_step=t, last=last)(velocity_of(TWO_MODES), noise, keys)
        np.testing.assert_allclose(got, want, atol=2e-5, err_msg=last)


ON_A_GRID = sorted(SAMPLERS.keys() - {"dopri5"})


@pytest.mark.parametrize("name", ON_A_GRID)
@pytest.mark.parametrize("shift", [1.0, 0.4])
def test_grid_is_exact(name, shift):
    for steps in (2, 7, 250):
        sampler = make_sampler(name, steps=steps, shift=shift)
        times = sampler.times()
        assert times.dtype == np.float32
        assert len(times) == steps + 1  # N steps are N, not N − 1
        assert (times[0], times[-1]) == (1.0, 0.0)
        assert np.all(np.diff(times) < 0)
        evaluated = sampler.evaluation_times()
        assert len(evaluated) == (2 * steps if name == "heun" else steps)
        if name == "euler_maruyama":
            assert times[-2] == np.float32(0.04)
            uniform = unshift_time(times[:-1].astype(np.float64), shift)
        else:
            uniform = unshift_time(times.astype(np.float64), shift)
        np.testing.assert_allclose(np.diff(uniform), np.diff(uniform)[0], atol=1e-6)


@pytest.mark.parametrize("name", ON_A_GRID)
def test_velocity_is_asked_at_the_times_announced_in_float32(name):
    sampler = make_sampler(name, steps=6, shift=0.4)
    seen = []

    def velocity(z, t):
        assert z.dtype == t.dtype == jnp.float32
        assert t.shape == z.shape[:1]
        jax.debug.callback(lambda t: seen.append(np.asarray(t)), t, ordered=True)
        return z.astype(jnp.bfloat16)

    keys = sample_keys(0, jnp.arange(3))
    z = jax.jit(lambda keys: sample(sampler, velocity, keys, (2, 2)))(keys)
    jax.effects_barrier()
    assert z.dtype == jnp.float32
    np.testing.assert_array_equal(np.stack(seen), np.repeat(sampler.evaluation_times()[:, None], 3, axis=1))


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_a_sample_ignores_its_batch(name):
    sampler = make_sampler(name, steps=8, shift=0.4)
    run = jax.jit(lambda keys: sample(sampler, velocity_of(TWO_MODES), keys, (3, 2)))
    whole = run(sample_keys(7, jnp.arange(10)))
    np.testing.assert_allclose(run(sample_keys(7, jnp.asarray([9, 2, 5]))), whole[jnp.asarray([9, 2, 5])], atol=1e-6)
    np.testing.assert_allclose(run(sample_keys(7, jnp.asarray([4]))), whole[4:5], atol=1e-6)
    assert np.abs(np.asarray(run(sample_keys(8, jnp.arange(10))) - whole)).min() > 0


def test_noise_of_the_steps_is_not_the_initial_noise():
    keys = sample_keys(0, jnp.arange(4))
    stay = lambda z, t: -z / 2  # at t = 1 the drift v − t·score is z/2
    z = EulerMaruyama(steps=2, last_step=0.5, last="data")(stay, jnp.zeros((4, 8, 8)), keys)
    assert abs(np.corrcoef(np.ravel(z), np.ravel(initial_noise(keys, (8, 8))))[0, 1]) < 0.25


def test_configuration_errors():
    with pytest.raises(ValueError, match="sampler 'euler_maruyma' is unknown; did you mean 'euler_maruyama'"):
        make_sampler("euler_maruyma")
    with pytest.raises(ValueError, match="sampler 'x' is unknown; choose one of euler, heun, euler_maruyama"):
        make_sampler("x")
    for bad in (0, -3, True):
        with pytest.raises(ValueError, match="steps must be a whole number of at least 1"):
            make_sampler("euler", steps=bad)
    with pytest.raises(ValueError, match="at least 2"):
        make_sampler("euler_maruyama", steps=1)
    for bad in (0.0, 1.0, -0.1):
        with pytest.raises(ValueError, match="last_step must be a time between 0 and 1"):
            make_sampler("euler_maruyama", last_step=bad)
    with pytest.raises(ValueError, match="last 'tweedie' is unknown; choose one of mean, data"):
        make_sampler("euler_maruyama", last="tweedie")
    with pytest.raises(ValueError, match="timestep shift"):
        make_sampler("heun", shift=0.0)


def test_orders_on_a_mixture_are_the_fitted_slopes():
    """Against Heun's method in float64 NumPy with 1,000 steps, whose own error is below all of these."""
    keys = sample_keys(3, jnp.arange(64))
    noise = initial_noise(keys, (1, 1))
    exact = reference_ode(SMOOTH, np.linspace(1, 0, 1001), np.asarray(noise, np.float64), True)
    steps = (10, 20, 40)
    for kind, order in ((Euler, 1), (Heun, 2), (AdamsBashforth, 2)):
        drawn = jax.jit(lambda kind=kind: [kind(steps=n)(velocity_of(SMOOTH), noise, keys) for n in steps])()
        errors = [np.abs(np.asarray(z, np.float64) - exact).mean() for z in drawn]
        slope = np.polyfit(np.log(steps), np.log(errors), 1)[0]
        assert -slope == pytest.approx(order, abs=0.25), kind


def test_weak_order_of_the_sde_is_the_fitted_slope_of_its_variance():
    """A step is z ← a z + b + s ξ for Gaussian data; ξ is known, so a, b and s are, and so are the moments."""
    keys, last = sample_keys(0, jnp.arange(2)), 0.1

    def affine(times, i):
        sampler = EulerMaruyama(steps=1000, last_step=last)  # no step of these is its last one
        at = lambda z: sampler.step(velocity_of(GAUSSIAN), keys, times, i, jnp.full((2, 1, 1), z))[:, 0, 0]
        draws = jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, i + 1), ()))(keys)
        s = (at(0.0)[0] - at(0.0)[1]) / (draws[0] - draws[1])
        return at(1.0)[0] - at(0.0)[0], at(0.0)[0] - s * draws[0], s

    counts, errors, every = (80, 160, 320), [], jax.jit(jax.vmap(affine, (None, 0)))
    for steps in counts:
        times = np.pad(EulerMaruyama(steps=steps + 1, last_step=last).times(), (0, 320 - steps))
        mean, variance = 0.0, 1.0
        for a, b, s in np.stack(every(jnp.asarray(times), jnp.arange(320)), 1).astype(float)[:steps]:
            mean, variance = a * mean + b, a**2 * variance + s**2
        assert mean == pytest.approx((1 - last) * 1.5, abs=1e-5)
        errors.append(abs(variance - ((1 - last) ** 2 * 0.25 + last**2)))
    assert -np.polyfit(np.log(counts), np.log(errors), 1)[0] == pytest.approx(1, abs=0.1)


def test_the_multistep_method_is_equation_7_on_a_shifted_grid():
    keys = sample_keys(5, jnp.arange(6))
    noise = initial_noise(keys, (4, 2))
    sampler = AdamsBashforth(steps=12, shift=0.4)
    z, before, times = np.asarray(noise, np.float64), None, sampler.times().astype(np.float64)
    for i in range(12):
        h, v = times[i + 1] - times[i], TWO_MODES.velocity(z, times[i])
        r = h / (times[i] - times[i - 1]) if i else 0.0
        z = z + h * (v if before is None else (1 + r / 2) * v - r / 2 * before)
        before = v
    np.testing.assert_allclose(jax.jit(lambda: sampler(velocity_of(TWO_MODES), noise, keys))(), z, atol=2e-5)


def test_the_last_step_may_be_said_before_the_shift():
    times = EulerMaruyama(steps=10, shift=0.4, last_step=0.04, before_shift=True).times()
    assert times[-2] == pytest.approx(0.04 / (0.04 + 0.4 * 0.96), rel=1e-6)
    uniform = unshift_time(times[:-1].astype(np.float64), 0.4)
    np.testing.assert_allclose(uniform, np.linspace(1, 0.04, 10), atol=1e-6)
