"""The straight path from data to noise, its timestep shift, and what a network may predict on it.

With latents z, noise ε ~ N(0, 1) and a time t in [0, 1] (1 = noise):

    z_t = (1 − t) z + t ε                                                     (1)
    v   = dz_t/dt = ε − z                                                     (2)

The timestep shift s moves a time t' = s(t) towards the noise for s < 1 and keeps both ends where they are:

    t' = t / (t + s (1 − t))          t = s t' / (1 − (1 − s) t')             (3)

(the first is the paper's t / (s + (1 − s) t), written so that both ends are exact in floating point).

A network may predict any of three things; from z_t and t each gives the others by way of the velocity:

    data      v = (z_t − z) / t                  z = z_t − t v                (4)
    noise     v = (ε − z_t) / (1 − t)            ε = z_t + (1 − t) v          (5)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from fae_jax.files.names import nearest

Time = TypeVar("Time", Array, np.ndarray, float)
TIME_DISTRIBUTIONS = ("uniform", "logit_normal")


def along(time: Float[Array, " b"], like: Float[Array, "b ..."]) -> Float[Array, "b ..."]:
    """`time` in float32 with the axes it needs to broadcast against `like`."""
    return time.astype(jnp.float32).reshape(time.shape + (1,) * (like.ndim - 1))


def interpolate(
    latents: Float[Array, "b n c"], noise: Float[Array, "b n c"], time: Float[Array, " b"]
) -> Float[Array, "b n c"]:
    """Equation (1): z_t in float32."""
    t = along(time, latents)
    return (1 - t) * latents.astype(jnp.float32) + t * noise.astype(jnp.float32)


def _check_shift(shift: float) -> None:
    if not (np.isfinite(shift) and shift > 0):
        raise ValueError(f"a timestep shift must be a positive number, got {shift}; 1 means no shift")


def shift_time(time: Time, shift: float) -> Time:
    """Equation (3), left: uniform time to the model's own time, elementwise; `shift` 0.4 sends 0.5 to 0.714…

    Raises:
      ValueError: `shift` is not positive.
    """
    _check_shift(shift)
    return time / (time + shift * (1 - time))


def unshift_time(time: Time, shift: float) -> Time:
    """Equation (3), right: the inverse of `shift_time`.

    Raises:
      ValueError: `shift` is not positive.
    """
    _check_shift(shift)
    return shift_time(time, 1 / shift)


def shift_of_size(values: int, base: int) -> float:
    """s = √(base / values): the more values a latent has, the more noise hides as much of it (SD3, arXiv 2403.03206,
    eq. 23; RAE, arXiv 2510.11690, with base = 4096), so that 16×16×32 has 0.707."""
    return float(np.sqrt(base / values))


def sample_time(
    keys: Key[Array, " b"],
    shift: float = 1.0,
    *,
    distribution: str = "uniform",
    location: float = 0.0,
    scale: float = 1.0,
) -> Float[Array, " b"]:
    """Draws one training time per key, float32 in [0, 1], then shifts it.

    Args:
      keys: one key per example.
      shift: timestep shift, applied after the draw.
      distribution: `uniform` on [0, 1), or `logit_normal`: sigmoid(location + scale · N(0, 1)).
      location, scale: the logit-normal's mean and standard deviation before the sigmoid.

    Raises:
      ValueError: `distribution` is unknown or `shift` is not positive.
    """
    if distribution == "uniform":
        time = jax.vmap(lambda key: jax.random.uniform(key, dtype=jnp.float32))(keys)
    elif distribution == "logit_normal":
        time = jax.nn.sigmoid(
            location + scale * jax.vmap(lambda key: jax.random.normal(key, dtype=jnp.float32))(keys)
        )
    else:
        raise ValueError(
            f"time distribution {distribution!r} is unknown; choose one of {', '.join(TIME_DISTRIBUTIONS)}"
        )
    return shift_time(time, shift)


class TrainingPair(NamedTuple):
    """A point on the path and what to predict there, all float32.

    Attributes:
      noisy: z_t of equation (1), (b, n, c).
      time: t after the shift, (b,).
      velocity: v of equation (2), (b, n, c).
    """

    noisy: Array
    time: Array
    velocity: Array


def training_pair(
    keys: Key[Array, " b"],
    latents: Float[Array, "b n c"],
    shift: float = 1.0,
    *,
    distribution: str = "uniform",
    location: float = 0.0,
    scale: float = 1.0,
) -> TrainingPair:
    """Draws time and noise for each example from its own key: equations (1) and (2).

    An example's draw depends on its key and its shape only, not on the batch around it. The arguments after
    `latents` go to `sample_time`, which also says what it raises.
    """
    time_keys, noise_keys = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
    time = sample_time(time_keys, shift, distribution=distribution, location=location, scale=scale)
    noise = jax.vmap(lambda key: jax.random.normal(key, latents.shape[1:], jnp.float32))(noise_keys)
    return TrainingPair(interpolate(latents, noise, time), time, noise - latents.astype(jnp.float32))


class Converter(NamedTuple):
    """Both ways between a prediction and the velocity: (prediction or v, z_t, t, floor) → v or prediction.

    Divisors t and 1 − t are kept at or above `floor`.
    """

    to_velocity: Callable[[Array, Array, Array, float], Array]
    from_velocity: Callable[[Array, Array, Array, float], Array]


CONVERTERS = {
    "velocity": Converter(
        to_velocity=lambda v, z_t, t, floor: v,
        from_velocity=lambda v, z_t, t, floor: v,
    ),
    "data": Converter(
        to_velocity=lambda z, z_t, t, floor: (z_t - z) / jnp.maximum(t, floor),
        from_velocity=lambda v, z_t, t, floor: z_t - t * v,
    ),
    "noise": Converter(
        to_velocity=lambda noise, z_t, t, floor: (noise - z_t) / jnp.maximum(1 - t, floor),
        from_velocity=lambda v, z_t, t, floor: z_t + (1 - t) * v,
    ),
}


def _converter(kind: str) -> Converter:
    if kind not in CONVERTERS:
        raise ValueError(f"prediction {kind!r} is unknown; {nearest(kind, CONVERTERS)}")
    return CONVERTERS[kind]


def convert(
    prediction: Float[Array, "b n c"],
    noisy: Float[Array, "b n c"],
    time: Float[Array, " b"],
    *,
    source: str,
    target: str,
    floor: float = 1e-6,
) -> Float[Array, "b n c"]:
    """Turns a prediction of kind `source` at (z_t, t) into one of kind `target`, in float32: equations (4) and (5).

    Args:
      prediction: the network's output.
      noisy: z_t.
      time: t.
      source, target: keys of `CONVERTERS`.
      floor: least divisor. Data says nothing of the velocity at t = 0, noise nothing of it at t = 1;
        there the floor keeps the answer finite. Training a velocity loss on data predictions wants about 0.05.

    Raises:
      ValueError: `source` or `target` is unknown.
    """
    come, go = _converter(source), _converter(target)
    z_t, t = noisy.astype(jnp.float32), along(time, noisy)
    velocity = come.to_velocity(prediction.astype(jnp.float32), z_t, t, floor)
    return go.from_velocity(velocity, z_t, t, floor)
