"""Guidance: away from a weaker prediction, with a weight for each interval of time.

With a velocity v, a weaker one v' and a weight w(t):

    v' + w (v − v') = v + (w − 1) (v − v')                                    (1)

The second form is the one computed: where w = 1 it is v exactly, and v' need not be evaluated at all. What is weaker
is the interval's kind:

    internal          v' = v_mid, what a second output head reads off a middle block of the same network: one pass
                      (arXiv 2512.24176)
    auto              v' of a smaller or earlier network, of the same condition (arXiv 2406.02507)
    classifier_free   v' = v_u, of no condition (arXiv 2207.12598)

Kinds go together, in this order: the velocity that one has guided is the v of the next, conditional and unconditional
alike, as the authors of internal guidance have it.

A schedule is a tuple of (low, high, weight), classifier-free, or (low, high, weight, kind). It holds on
low < t ≤ high, and at t = 0 too where low is 0; t is the model's own (shifted) time, 1 = noise. Outside every
interval of a kind its weight is 1. The paper's main results:

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
from fae_jax.files.names import nearest

KINDS = ("classifier_free", "internal", "auto")
Interval = tuple[float, float, float] | tuple[float, float, float, str] | Array | tuple[Array, str]
Schedule = tuple[Interval, ...]
Guidance = float | int | Sequence[Sequence[Any] | Array] | None
NOTHING_TO_GUIDE_BY = (
    "field sampling.guidance guides towards a condition, and this generator knows none (condition.kind=none): set "
    "--config.sampling.guidance='()'"
)
PAPER_SCHEDULE: Schedule = ((0.9, 1.0, 0.9), (0.7, 0.9, 1.0), (0.0, 0.7, 2.5))


def make_schedule(guidance: Any) -> Schedule:
    """Checks a schedule and brings it to its normal form, intervals by kind and in order of time.

    Args:
      guidance: intervals (low, high, weight) or (low, high, weight, kind); or one weight for all times,
        classifier-free; or None for no guidance. Intervals that are JAX arrays (3,), or pairs of one and a kind, are
        taken as they are: as arguments of a program that serves many schedules.

    Raises:
      ValueError: an interval is not three finite numbers with 0 ≤ low < high ≤ 1, its kind is unknown, or two
        intervals of a kind overlap.
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
        kind = parts[3] if len(parts) == 4 else KINDS[0]
        if len(parts) not in (3, 4) or not all(isinstance(part, Real) and math.isfinite(part) for part in parts[:3]):
            raise ValueError(f"guidance interval {interval!r} must be three finite numbers (low, high, weight)")
        if kind not in KINDS:
            raise ValueError(f"guidance {kind!r} is unknown; {nearest(str(kind), KINDS)}")
        low, high, weight = (float(part) for part in parts[:3])
        if not 0 <= low < high <= 1:
            raise ValueError(f"guidance interval ({low}, {high}] must satisfy 0 <= low < high <= 1")
        intervals.append((KINDS.index(kind), low, high, weight))
    intervals.sort()
    for (kind, low, high, _), (next_kind, next_low, next_high, _) in zip(intervals, intervals[1:], strict=False):
        if kind == next_kind and next_low < high:
            raise ValueError(
                f"guidance intervals ({low}, {high}] and ({next_low}, {next_high}] overlap; "
                "end one where the next begins"
            )
    return tuple((*numbers, KINDS[kind]) if kind else tuple(numbers) for kind, *numbers in intervals)


def _are_arguments(schedule: Any) -> bool:
    """Whether the intervals are arguments of a program, with no values yet."""
    return isinstance(schedule, tuple) and any(
        isinstance(interval[0] if isinstance(interval, tuple) and interval else interval, jax.Array)
        for interval in schedule
    )


def of_kind(schedule: Schedule, kind: str) -> Schedule:
    """The intervals of one kind, without it, in a schedule as `make_schedule` leaves it."""
    return tuple(plain for plain, own in map(split, schedule) if own == kind)


def split(interval: Interval) -> tuple[Any, str]:
    """An interval of a schedule as `make_schedule` leaves it: without its kind, and that."""
    if not isinstance(interval, tuple) or not isinstance(interval[-1], str):
        return interval, KINDS[0]
    *values, kind = interval
    return (values[0] if len(values) == 1 else tuple(values)), kind


def _acts(intervals: Schedule) -> bool:
    """Whether intervals of one kind guide anywhere; arguments may."""
    return _are_arguments(intervals) or any(weight != 1 for _, _, weight in intervals)


def guidance_weight(schedule: Schedule, time: Time) -> Time:
    """w(t), elementwise; compared and returned in float32, so that host (NumPy in, NumPy out) and device agree.

    Args:
      schedule: intervals of one kind, as `make_schedule` or `of_kind` leaves them.
      time: the model's own times.
    """
    traced = any(isinstance(each, jax.Array) for interval in schedule for each in interval)
    numpy = np if isinstance(time, np.ndarray) and not traced else jnp
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
    *,
    channels: int = 0,
    calls: int = 1,
) -> Callable[[Array, Array, PyTree], Array]:
    """Equation (1), classifier-free: a velocity(z, t, condition) that is guided as `schedule` says.

    Where no example's weight differs from 1 (samplers use one time for the whole batch) the call is made on the batch
    itself.

    Args:
      velocity: velocity(z, t, condition) of a network: (b, n, c), (b,), arrays with leading axis b → (b, n, c).
      schedule: intervals of this kind.
      null_condition: what "no condition" is, of the same structure as a condition, each leaf broadcastable to
        the condition's: the index of the null label, or the encoding of the empty prompt.
      channels: how many channels are guided, the first ones; 0 for all. SiT and LightningDiT guide 3.
      calls: 1, conditional and unconditional in one call on a batch twice as long, each example beside its twin, so
        that a batch sharded over devices stays where it is; or 2, one after the other.

    Raises:
      ValueError: the schedule is not valid.
    """
    intervals = make_schedule(schedule)
    if not _acts(intervals):
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
            if calls == 2:
                conditional, unconditional = (velocity(z, t, told).astype(jnp.float32) for told in (condition, null))
            else:
                both = velocity(twin(z, z), twin(t, t), jax.tree.map(twin, condition, null)).astype(jnp.float32)
                conditional, unconditional = rearrange(both, "(b two) n c -> two b n c", two=2)
            difference = conditional - unconditional
            if channels:
                difference = difference.at[..., channels:].set(0.0)
            return conditional + (along(weight, z) - 1) * difference

        def without_guidance() -> Array:
            return velocity(z, t, condition).astype(jnp.float32)

        return jax.lax.cond(jnp.any(weight != 1), with_guidance, without_guidance)

    return guided_velocity


def internally_guided(
    both: Callable[[Array, Array, PyTree], tuple[Any, Any]], schedule: Guidance
) -> Callable[[Array, Array, PyTree], Array]:
    """Internal guidance: equation (1) with what the same pass reads off a middle block in the place of v'.

    Args:
      both: both(z, t, condition) → v and v_mid.
      schedule: intervals of this kind.

    Raises:
      ValueError: the schedule is not valid.
    """
    intervals = make_schedule(schedule)

    def internally_guided_velocity(z: Array, t: Array, condition: PyTree) -> Array:
        last, middle = (each.astype(jnp.float32) for each in both(z, t, condition))
        weight = along(guidance_weight(intervals, t), z)
        return jnp.where(weight == 1, last, last + (weight - 1) * (last - middle))

    return internally_guided_velocity


def autoguided(
    velocity: Callable[[Array, Array, PyTree], Any],
    weaker: Callable[[Array, Array, PyTree], Any],
    schedule: Guidance,
) -> Callable[[Array, Array, PyTree], Array]:
    """Autoguidance: equation (1) with a weaker network, same condition, in the place of v'.

    Args:
      velocity, weaker: velocity(z, t, condition) of the network and of the smaller or earlier one. The weaker
        one is evaluated only where some weight differs from 1.
      schedule: intervals of this kind.

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
    """Network evaluations per sample that guidance really makes, those of a weaker network counted like its own:
    twice as many where a weight of the classifier-free or of the auto kind is not 1. Internal guidance takes none.

    Args:
      evaluation_times: the sampler's `evaluation_times`.
      schedule: see `make_schedule`.

    Raises:
      ValueError: the schedule is not valid.
    """
    return int(evaluations_at(make_schedule(schedule), evaluation_times).sum())


def evaluations_at(schedule: Schedule, time: Time) -> Time:
    """`function_evaluations` of one evaluation of the guided velocity at each time, of a schedule in normal form."""
    numpy = np if isinstance(time, np.ndarray) else jnp
    weights = (guidance_weight(of_kind(schedule, kind), time) for kind in ("classifier_free", "auto"))
    return math.prod(numpy.where(weight == 1, 1, 2) for weight in weights)
