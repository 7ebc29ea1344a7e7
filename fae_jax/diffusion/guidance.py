"""Classifier-free guidance, with a weight for each interval of time, on all channels.

With the conditional velocity v_c, the unconditional v_u and a weight w(t):

    v = v_u + w(t) (v_c − v_u) = v_c + (w(t) − 1) (v_c − v_u)                 (1)

The second form is the one computed: where w = 1 it is v_c exactly, and v_u need not be evaluated at all.

A schedule is a tuple of (low, high, weight). It holds on low < t ≤ high, and at t = 0 too where low is 0; t is
the model's own (shifted) time, 1 = noise. Outside every interval the weight is 1. The paper's main results:

    PAPER_SCHEDULE = ((0.9, 1.0, 0.9), (0.7, 0.9, 1.0), (0.0, 0.7, 2.5))
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Array, Float, PyTree

from fae_jax.diffusion.path import Time, along

Schedule = tuple[tuple[float, float, float] | Array, ...]
Guidance = float | int | Sequence[Sequence[float] | Array] | None
PAPER_SCHEDULE: Schedule = ((0.9, 1.0, 0.9), (0.7, 0.9, 1.0), (0.0, 0.7, 2.5))


def make_schedule(guidance: Any) -> Schedule:
    """Checks a schedule and brings it to its normal form, intervals in order of time.

    Args:
      guidance: intervals (low, high, weight); or one weight for all times; or None for no guidance. Intervals that
        are JAX arrays (3,) are taken as they are: as arguments of a program that serves many schedules.

    Raises:
      ValueError: an interval is not three finite numbers with 0 ≤ low < high ≤ 1, or two intervals overlap.
    """
    if guidance is None:
        return ()
    if _are_arguments(guidance):
        return guidance
    if isinstance(guidance, float | int):
        guidance = ((0.0, 1.0, guidance),)
    intervals = []
    for interval in guidance:
        parts = tuple(interval) if isinstance(interval, Sequence | np.ndarray) else ()
        if len(parts) != 3 or not all(isinstance(part, Real) and math.isfinite(part) for part in parts):
            raise ValueError(f"guidance interval {interval!r} must be three finite numbers (low, high, weight)")
        low, high, weight = (float(part) for part in parts)
        if not 0 <= low < high <= 1:
            raise ValueError(f"guidance interval ({low}, {high}] must satisfy 0 <= low < high <= 1")
        intervals.append((low, high, weight))
    intervals.sort()
    for (low, high, _), (next_low, next_high, _) in zip(intervals, intervals[1:], strict=False):
        if next_low < high:
            raise ValueError(
                f"guidance intervals ({low}, {high}] and ({next_low}, {next_high}] overlap; "
                "end one where the next begins"
            )
    return tuple(intervals)


def _are_arguments(schedule: Any) -> bool:
    """Whether the intervals are arguments of a program, with no values yet."""
    return isinstance(schedule, tuple) and any(isinstance(interval, jax.Array) for interval in schedule)


def guidance_weight(schedule: Schedule, time: Time) -> Time:
    """w(t), elementwise; compared and returned in float32, so that host (NumPy in, NumPy out) and device agree.

    Args:
      schedule: intervals as `make_schedule` leaves them.
      time: the model's own times.
    """
    numpy = np if isinstance(time, np.ndarray) else jnp
    time = numpy.asarray(time, np.float32)
    weight = numpy.ones_like(time)
    for low, high, value in schedule:
        low, high, value = (numpy.asarray(each, np.float32) for each in (low, high, value))
        inside = (time > low) | ((time == 0) & (low == 0))
        weight = numpy.where(inside & (time <= high), value, weight)
    return weight


def guided(
    velocity: Callable[[Array, Array, PyTree], Any],
    schedule: Guidance,
    null_condition: PyTree,
) -> Callable[[Array, Array, PyTree], Array]:
    """Equation (1): a velocity(z, t, condition) that is guided as `schedule` says.

    Conditional and unconditional are one call on a batch twice as long, each example beside its twin, so that
    a batch sharded over devices stays where it is. Where no example's weight differs from 1 (samplers use one
    time for the whole batch) the call is made on the batch itself. All channels are guided.

    Args:
      velocity: velocity(z, t, condition) of a network: (b, n, c), (b,), arrays with leading axis b → (b, n, c).
      schedule: see `make_schedule`.
      null_condition: what "no condition" is, of the same structure as a condition, each leaf broadcastable to
        the condition's: the index of the null label, or the encoding of the empty prompt.

    Raises:
      ValueError: the schedule is not valid.
    """
    intervals = make_schedule(schedule)
    if not _are_arguments(intervals) and all(weight == 1 for _, _, weight in intervals):
        return velocity

    def twin(first: Array, second: Array) -> Array:
        return rearrange(jnp.stack([first, second], axis=1), "b two ... -> (b two) ...")

    def guided_velocity(z: Array, t: Array, condition: PyTree) -> Array:
        weight = guidance_weight(intervals, t)

        def with_guidance() -> Array:
            null = jax.tree.map(
                lambda leaf, absent: jnp.broadcast_to(jnp.asarray(absent, leaf.dtype), leaf.shape),
                condition,
                null_condition,
            )
            both = velocity(twin(z, z), twin(t, t), jax.tree.map(twin, condition, null)).astype(jnp.float32)
            conditional, unconditional = rearrange(both, "(b two) n c -> two b n c", two=2)
            return conditional + (along(weight, z) - 1) * (conditional - unconditional)

        def without_guidance() -> Array:
            return velocity(z, t, condition).astype(jnp.float32)

        return jax.lax.cond(jnp.any(weight != 1), with_guidance, without_guidance)

    return guided_velocity


def autoguided(
    velocity: Callable[[Array, Array, PyTree], Any],
    weaker: Callable[[Array, Array, PyTree], Any],
    schedule: Guidance,
) -> Callable[[Array, Array, PyTree], Array]:
    """Autoguidance (arXiv 2406.02507): equation (1) with a weaker network, same condition, in the place of v_u.

    Args:
      velocity, weaker: velocity(z, t, condition) of the network and of the smaller or earlier one. The weaker
        one is evaluated only where some weight differs from 1.
      schedule: see `make_schedule`.

    Raises:
      ValueError: the schedule is not valid.
    """
    intervals = make_schedule(schedule)

    def autoguided_velocity(z: Array, t: Array, condition: PyTree) -> Array:
        weight = guidance_weight(intervals, t)
        strong = velocity(z, t, condition).astype(jnp.float32)

        def with_guidance() -> Array:
            return strong + (along(weight, z) - 1) * (strong - weaker(z, t, condition).astype(jnp.float32))

        return jax.lax.cond(jnp.any(weight != 1), with_guidance, lambda: strong)

    return autoguided_velocity


def function_evaluations(evaluation_times: Float[np.ndarray, " k"], schedule: Guidance = None) -> int:
    """Network evaluations per sample that guidance really makes: 1 where the weight is 1, otherwise 2.

    Args:
      evaluation_times: the sampler's `evaluation_times`.
      schedule: see `make_schedule`.

    Raises:
      ValueError: the schedule is not valid.
    """
    weight = guidance_weight(make_schedule(schedule), evaluation_times)
    return int(np.sum(np.where(weight == 1, 1, 2)))
