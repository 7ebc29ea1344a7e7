"""Diffusion over a `velocity(z, t, condition)`: path, predictions, guidance and samplers. Knows no network.

Latents are (b, n, c) float32, times (b,) float32 in [0, 1], and t = 1 is noise.
"""

from fae_jax.diffusion.guidance import (
    PAPER_SCHEDULE,
    autoguided,
    function_evaluations,
    guidance_weight,
    guided,
    make_schedule,
)
from fae_jax.diffusion.path import (
    CONVERTERS,
    TrainingPair,
    convert,
    interpolate,
    sample_time,
    shift_time,
    training_pair,
    unshift_time,
)
from fae_jax.diffusion.samplers import (
    SAMPLERS,
    Euler,
    EulerMaruyama,
    Heun,
    Sampler,
    initial_noise,
    make_sampler,
    sample,
    sample_keys,
)

__all__ = [
    "CONVERTERS",
    "PAPER_SCHEDULE",
    "SAMPLERS",
    "Euler",
    "EulerMaruyama",
    "Heun",
    "Sampler",
    "TrainingPair",
    "autoguided",
    "convert",
    "function_evaluations",
    "guidance_weight",
    "guided",
    "initial_noise",
    "interpolate",
    "make_sampler",
    "make_schedule",
    "sample",
    "sample_keys",
    "sample_time",
    "shift_time",
    "training_pair",
    "unshift_time",
]
