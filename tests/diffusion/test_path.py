"""The path, its shift, its training pairs, and every round trip between predictions."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gaussian_reference import Mixture

from fae_jax.diffusion.path import (
    CONVERTERS,
    convert,
    interpolate,
    sample_time,
    shift_time,
    training_pair,
    unshift_time,
)


def keys_of(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def test_shift_has_the_papers_value_and_formula():
    assert shift_time(0.5, 0.4) == pytest.approx(0.5 / 0.7)  # .714…
    t = np.linspace(0, 1, 101)
    for s in (0.3, 0.7, 1.0, 3.0):
        np.testing.assert_allclose(shift_time(t, s), t / (s + (1 - s) * t), rtol=1e-12)


@pytest.mark.parametrize("shift", [0.1, 0.4, 0.7, 1.0, 2.5])
def test_shift_round_trip_order_and_exact_ends(shift):
    t = np.linspace(0, 1, 1001)
    np.testing.assert_allclose(unshift_time(shift_time(t, shift), shift), t, atol=1e-12)
    np.testing.assert_allclose(shift_time(unshift_time(t, shift), shift), t, atol=1e-12)
    assert np.all(np.diff(shift_time(t, shift)) > 0)
    ends = shift_time(jnp.asarray([0.0, 1.0], jnp.float32), shift)
    assert ends.tolist() == [0.0, 1.0]


@pytest.mark.parametrize("shift", [0.0, -1.0, float("nan"), float("inf")])
def test_shift_must_be_positive(shift):
    with pytest.raises(ValueError, match="timestep shift"):
        shift_time(0.5, shift)
    with pytest.raises(ValueError, match="timestep shift"):
        unshift_time(0.5, shift)


def test_time_1_is_noise_and_velocity_is_the_slope():
    z, noise = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    at = lambda t: np.asarray(interpolate(jnp.asarray(z), jnp.asarray(noise), jnp.full(3, t, jnp.float32)))
    np.testing.assert_array_equal(at(0.0), z)
    np.testing.assert_array_equal(at(1.0), noise)
    np.testing.assert_allclose((at(0.75) - at(0.25)) / 0.5, noise - z, atol=1e-5)


def test_uniform_times_follow_the_shifted_law():
    times = np.sort(np.asarray(sample_time(keys_of(20000), 0.4)))
    assert times.dtype == np.float32
    # P(t' <= a) = unshift(a), so unshifted order statistics are those of a uniform (Kolmogorov-Smirnov, p ~ 1e-6)
    gap = np.abs(unshift_time(times.astype(np.float64), 0.4) - (np.arange(20000) + 0.5) / 20000).max()
    assert gap < 2.7 / np.sqrt(20000)
    assert np.median(times) == pytest.approx(0.5 / 0.7, abs=0.01)


def test_logit_normal_times():
    times = np.asarray(sample_time(keys_of(20000), distribution="logit_normal", location=-0.5, scale=0.8))
    logits = np.log(times / (1 - times))
    assert logits.mean() == pytest.approx(-0.5, abs=0.03)
    assert logits.std() == pytest.approx(0.8, abs=0.03)
    with pytest.raises(ValueError, match="'normal' is unknown; choose one of uniform, logit_normal"):
        sample_time(keys_of(2), distribution="normal")


def test_training_pair_lies_on_the_path():
    z = np.random.default_rng(1).normal(2.0, 3.0, size=(400, 8, 4))
    pair = jax.jit(training_pair, static_argnums=2)(keys_of(400), jnp.asarray(z, jnp.bfloat16), 0.4)
    assert {part.dtype for part in pair} == {jnp.dtype("float32")}
    z = np.asarray(jnp.asarray(z, jnp.bfloat16), np.float64)
    t = np.asarray(pair.time, np.float64)[:, None, None]
    noise = np.asarray(pair.velocity, np.float64) + z
    np.testing.assert_allclose(pair.noisy, (1 - t) * z + t * noise, atol=1e-5)
    assert noise.mean() == pytest.approx(0, abs=0.04)
    assert noise.var() == pytest.approx(1, abs=0.05)
    # time and noise come from different bits of the key
    assert abs(np.corrcoef(t[:, 0, 0], noise[:, 0, 0])[0, 1]) < 0.2
    assert len(np.unique(t)) == 400


def test_training_pair_of_an_example_ignores_its_batch():
    z = jax.random.normal(jax.random.key(3), (6, 4, 2))
    keys = keys_of(6)
    whole = training_pair(keys, z, 0.4)
    order = jnp.asarray([4, 1])
    part = training_pair(keys[order], z[order], 0.4)
    for a, b in zip(whole, part, strict=True):
        np.testing.assert_array_equal(a[order], b)


def test_predictions_of_a_known_law():
    law = Mixture((0.3, 0.7), (-1.5, 1.0), (0.4, 0.6))
    t, x = 0.37, np.linspace(-3, 3, 60).reshape(1, 30, 2)
    truth = {
        "velocity": law.velocity(x, t),
        "data": law.data(x, t),
        "noise": law.noise(x, t),
    }
    assert set(truth) == set(CONVERTERS)
    for source, target in itertools.product(truth, truth):
        got = convert(
            jnp.asarray(truth[source], jnp.float32),
            jnp.asarray(x, jnp.float32),
            jnp.full(1, t, jnp.float32),
            source=source,
            target=target,
        )
        np.testing.assert_allclose(got, truth[target], atol=2e-5, err_msg=f"{source} to {target}")


@pytest.mark.parametrize(("first", "second"), list(itertools.permutations(CONVERTERS, 2)))
def test_round_trips_with_a_time_for_each_example(first, second):
    random = np.random.default_rng(2)
    prediction, noisy = (jnp.asarray(random.normal(size=(5, 3, 2)), jnp.float32) for _ in range(2))
    time = jnp.asarray([0.05, 0.3, 0.5, 0.7, 0.95], jnp.float32)
    there = convert(prediction, noisy, time, source=first, target=second)
    back = convert(there, noisy, time, source=second, target=first)
    np.testing.assert_allclose(back, prediction, atol=2e-4)


@pytest.mark.parametrize(("first", "second"), list(itertools.permutations(CONVERTERS, 2)))
def test_converters_round_trip_in_float64(first, second):
    random = np.random.default_rng(2)
    with jax.enable_x64(True):
        prediction, z_t = (jnp.asarray(random.normal(size=(50, 3))) for _ in range(2))
        t = jnp.linspace(0.02, 0.98, 50)[:, None]

        def turned(value, source, target):
            v = CONVERTERS[source].to_velocity(value, z_t, t, 1e-6)
            return CONVERTERS[target].from_velocity(v, z_t, t, 1e-6)

        there = turned(prediction, first, second)
        assert there.dtype == jnp.float64
        np.testing.assert_allclose(turned(there, second, first), prediction, atol=1e-10)


def test_converters_stay_finite_at_both_ends():
    noisy = jnp.ones((2, 1, 1))
    ends = jnp.asarray([0.0, 1.0])
    for source, target in itertools.product(CONVERTERS, CONVERTERS):
        assert np.isfinite(convert(0.5 * noisy, noisy, ends, source=source, target=target)).all(), (source, target)
    # below the floor the velocity of a data prediction is (z_t - z) / floor
    v = convert(0.5 * noisy, noisy, jnp.asarray([0.01, 0.5]), source="data", target="velocity", floor=0.05)
    np.testing.assert_allclose(v.reshape(-1), [10.0, 1.0], rtol=1e-6)


def test_unknown_prediction_suggests_the_nearest():
    z = jnp.ones((1, 1, 1))
    with pytest.raises(ValueError, match="prediction 'velocty' is unknown; did you mean 'velocity'"):
        convert(z, z, jnp.ones(1), source="velocty", target="data")
