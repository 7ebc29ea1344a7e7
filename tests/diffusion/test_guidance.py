"""Guidance by intervals: the weights, the channels, and the evaluations really made."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fae_jax.diffusion.guidance import (
    PAPER_SCHEDULE,
    autoguided,
    function_evaluations,
    guidance_weight,
    guided,
    make_schedule,
)
from fae_jax.diffusion.samplers import Euler, EulerMaruyama, Heun, initial_noise, sample_keys

NULL = 3


class Counted:
    """velocity(z, t, label) that depends on all three and counts the rows and calls that are really run."""

    def __init__(self):
        self.rows = self.calls = 0

    def _count(self, rows):
        self.rows += int(rows)
        self.calls += 1

    def __call__(self, z, t, label):
        jax.debug.callback(self._count, z.shape[0])
        channel = jnp.arange(1, z.shape[-1] + 1, dtype=jnp.float32)
        return jnp.sin(z) + t[:, None, None] + (1 + label[:, None, None]) * channel


def reference(z, t, label, weight):
    """Equation v_u + w (v_c − v_u) in float64."""
    z, channel = np.asarray(z, np.float64), np.arange(1, z.shape[-1] + 1)
    at = lambda y: np.sin(z) + t + (1 + np.asarray(y, np.float64)[:, None, None]) * channel
    null = at(np.full(len(z), NULL))
    return null + weight * (at(label) - null)


@pytest.mark.parametrize(
    ("time", "weight"),
    [(1.0, 0.9), (0.95, 0.9), (0.9, 1.0), (0.8, 1.0), (0.7, 2.5), (0.3, 2.5), (1e-6, 2.5), (0.0, 2.5)],
)
def test_paper_schedule_is_half_open_and_guides_all_channels(time, weight):
    schedule = make_schedule(PAPER_SCHEDULE)
    assert guidance_weight(schedule, np.float32([time])) == pytest.approx(weight)
    assert float(guidance_weight(schedule, jnp.float32(time))) == pytest.approx(weight)
    z = jax.random.normal(jax.random.key(0), (3, 4, 32))
    label = jnp.asarray([0, 2, 1])
    got = jax.jit(guided(Counted(), PAPER_SCHEDULE, NULL))(z, jnp.full(3, time, jnp.float32), label)
    np.testing.assert_allclose(got, reference(z, time, label, weight), rtol=1e-5, atol=1e-4)


def test_outside_every_interval_the_weight_is_1():
    schedule = make_schedule([(0.2, 0.4, 3.0)])
    times = np.float32([0.0, 0.1, 0.2, 0.21, 0.4, 0.41, 1.0])
    np.testing.assert_array_equal(guidance_weight(schedule, times), np.float32([1, 1, 1, 3, 3, 1, 1]))


def test_each_example_has_its_own_weight_when_times_differ():
    z = jax.random.normal(jax.random.key(1), (3, 2, 5))
    label, times = jnp.asarray([1, 0, 2]), [0.95, 0.8, 0.2]
    got = guided(Counted(), PAPER_SCHEDULE, NULL)(z, jnp.asarray(times, jnp.float32), label)
    for i, (time, weight) in enumerate(zip(times, (0.9, 1.0, 2.5), strict=True)):
        want = reference(z[i : i + 1], time, label[i : i + 1], weight)
        np.testing.assert_allclose(got[i : i + 1], want, rtol=1e-5, atol=1e-4)


def test_a_condition_may_be_a_tree_of_text_and_mask():
    def velocity(z, t, condition):
        return z + jnp.sum(condition["text"] * condition["mask"][..., None], axis=(1, 2))[:, None, None]

    z = jnp.zeros((2, 1, 1))
    text = jnp.asarray([[[1.0], [2.0]], [[3.0], [4.0]]])
    condition = {"text": text, "mask": jnp.ones((2, 2), bool)}
    null = {"text": jnp.full((2, 1), 10.0), "mask": jnp.asarray([True, False])}
    got = guided(velocity, 2.0, null)(z, jnp.ones(2), condition)
    np.testing.assert_allclose(got.reshape(-1), [10 + 2 * (3 - 10), 10 + 2 * (7 - 10)], rtol=1e-6)


def test_one_doubled_call_where_guided_and_one_plain_call_elsewhere():
    counted = Counted()
    velocity = jax.jit(guided(counted, PAPER_SCHEDULE, NULL))
    z, label = jnp.zeros((3, 2, 2)), jnp.zeros(3, jnp.int32)
    for time, rows in ((0.95, 6), (0.8, 3), (0.5, 6)):
        counted.rows = counted.calls = 0
        velocity(z, jnp.full(3, time, jnp.float32), label).block_until_ready()
        jax.effects_barrier()
        assert (counted.calls, counted.rows) == (1, rows), time


@pytest.mark.parametrize("schedule", [None, 1.0, 2.0, PAPER_SCHEDULE, ((0.0, 0.7, 1.8),), ((0.3, 0.31, 4.0),)])
@pytest.mark.parametrize(
    ("sampler", "unguided"),
    [
        (Euler(steps=25, shift=0.4), 25),
        (Euler(steps=10), 10),
        (Heun(steps=10, shift=0.4), 20),
        (EulerMaruyama(steps=25, shift=0.4), 25),
    ],
)
def test_function_evaluations_are_the_ones_made(sampler, unguided, schedule):
    assert function_evaluations(sampler.evaluation_times()) == unguided
    counted = Counted()
    velocity = guided(counted, schedule, NULL)
    keys = sample_keys(0, jnp.arange(2))
    label = jnp.asarray([0, 1])
    run = jax.jit(lambda noise, keys: sampler(lambda z, t: velocity(z, t, label), noise, keys))
    run(initial_noise(keys, (2, 2)), keys).block_until_ready()
    jax.effects_barrier()
    assert counted.rows == 2 * function_evaluations(sampler.evaluation_times(), schedule)
    if schedule in (None, 1.0):
        assert counted.rows == 2 * unguided
    if schedule == 2.0:
        assert counted.rows == 4 * unguided


def test_counts_of_the_papers_guided_sampler():
    times = Euler(steps=250).evaluation_times()
    # 1.000 … 0.904 (25 steps) twice, 0.900 … 0.704 (50 steps) once, 0.700 … 0.004 (175 steps) twice
    assert function_evaluations(times, PAPER_SCHEDULE) == 50 + 50 + 350
    assert function_evaluations(times) == 250


def test_autoguidance_takes_the_weaker_network_for_the_unconditional():
    strong = lambda z, t, label: jnp.full_like(z, 3.0)
    counted = Counted()

    def weaker(z, t, label):
        counted(z, t, label)
        return jnp.full_like(z, 2.0)

    velocity = jax.jit(autoguided(strong, weaker, ((0.0, 0.5, 2.5),)))
    z, label = jnp.zeros((2, 1, 1)), jnp.zeros(2, jnp.int32)
    np.testing.assert_allclose(velocity(z, jnp.full(2, 0.8), label), 3.0)
    jax.effects_barrier()
    assert counted.calls == 0
    np.testing.assert_allclose(velocity(z, jnp.full(2, 0.3), label), 2.0 + 2.5)
    jax.effects_barrier()
    assert counted.calls == 1


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ([(0.0, 0.5, 2.0), (0.4, 1.0, 1.0)], "overlap; end one where the next begins"),
        ([(0.5, 0.2, 2.0)], "0 <= low < high <= 1"),
        ([(0.5, 0.5, 2.0)], "0 <= low < high <= 1"),
        ([(-0.1, 0.5, 2.0)], "0 <= low < high <= 1"),
        ([(0.1, 1.5, 2.0)], "0 <= low < high <= 1"),
        ([(0.1, 0.5)], "must be three finite numbers"),
        ([(0.1, 0.5, float("nan"))], "must be three finite numbers"),
        (float("inf"), "must be three finite numbers"),
    ],
)
def test_bad_schedules_are_refused(schedule, message):
    with pytest.raises(ValueError, match=message):
        make_schedule(schedule)


def test_schedules_are_put_in_order():
    assert make_schedule(PAPER_SCHEDULE) == ((0.0, 0.7, 2.5), (0.7, 0.9, 1.0), (0.9, 1.0, 0.9))
    assert make_schedule(None) == ()
    assert make_schedule(2) == ((0.0, 1.0, 2.0),)


def test_schedules_as_arguments_share_a_program_and_guide_as_written_ones():
    z, label, traced = jax.random.normal(jax.random.key(0), (3, 4, 8)), jnp.asarray([0, 2, 1]), []

    @jax.jit
    def velocity(intervals, time):
        traced.append(1)
        return guided(Counted(), tuple(intervals), NULL)(z, jnp.full(3, time, jnp.float32), label)

    schedules = (PAPER_SCHEDULE, ((0.0, 0.2, 1.0), (0.2, 0.5, 3.0), (0.5, 0.6, -1.0)))
    for schedule in schedules:
        for time in (0.0, 0.2, 0.5, 0.7, 0.9, 1.0):
            ours = velocity(jnp.asarray(make_schedule(schedule), jnp.float32), jnp.float32(time))
            theirs = guided(Counted(), schedule, NULL)(z, jnp.full(3, time, jnp.float32), label)
            np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)
    assert len(traced) == 1
