"""From noise to latents: integrate a velocity from t = 1 to t = 0 in exactly the steps asked for.

The ODE of the path moves with the velocity. Its time runs backward, so every step h is negative:

    dz = v(z, t) dt                                                           (1)
    Euler   z ← z + h v(z, t)                                                 (2)
    Heun    z ← z + h/2 (v(z, t) + v(z + h v(z, t), t + h))                   (3)
    Adams-Bashforth   z ← z + h ((1 + r/2) v(z, t) − r/2 v⁻),   r = h / h⁻    (7)

with h⁻ and v⁻ of the step before; its first step is Euler's.

For every g(t) ≥ 0, an SDE run backward has the same marginals p_t as (1), because the diffusion of p_t by
½ g² Δp = ∇·(½ g² p ∇log p) is undone by a drift of ½ g² ∇log p in the direction of travel:

    dz = (v − ½ g² ∇log p_t) dt + g dW̄,   dt < 0                              (4)

With −dt > 0 the travelling drift is −v + ½ g² ∇log p_t: towards the data and up the score. SiT (arXiv
2401.08740) and REPA (arXiv 2410.06940) take g² = 2t, and the score from the velocity:

    ∇log p_t = −(z + (1 − t) v) / t                                           (5)
    Euler-Maruyama   z ← z + h (v − t ∇log p_t) + √(2t |h|) ξ                 (6)

The last step, from `last_step` to 0, adds no noise.

Times are uniform, then shifted (`path.shift_time`). A sample depends on its own key only: on neither its place
in the batch nor the batch's size.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from fae_jax.diffusion.adaptive import Dopri5
from fae_jax.diffusion.guidance import PAPER_SCHEDULE, make_schedule
from fae_jax.diffusion.path import shift_time, unshift_time
from fae_jax.files.names import nearest
from fae_jax.section import above, at_least, at_most, one_of, option

Velocity = Callable[[Array, Array], Array]


def sample_keys(seed: int, indices: Int[Array, " b"]) -> Key[Array, " b"]:
    """The key of each sample: fold_in(key(seed), index of the sample in the whole run)."""
    return jax.vmap(lambda index: jax.random.fold_in(jax.random.key(seed), index))(indices)


def _normal(keys: Key[Array, " b"], draw: int | Array, shape: tuple[int, ...]) -> Float[Array, "b ..."]:
    return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, draw), shape, jnp.float32))(keys)


def initial_noise(keys: Key[Array, " b"], shape: tuple[int, ...]) -> Float[Array, "b ..."]:
    """Standard normal noise of `shape` for each key: draw 0 of the sample's key (SDE noise is draws 1, 2, …)."""
    return _normal(keys, 0, shape)


def _at(velocity: Velocity, z: Array, time: Array) -> Array:
    """The velocity in float32 with one time for the whole batch."""
    return velocity(z, jnp.full(z.shape[:1], time, jnp.float32)).astype(jnp.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Euler:
    """Equation (2): `steps` evaluations. Other samplers override its `step` and its times.

    Attributes:
      steps: number of steps, at least 1.
      shift: timestep shift of the grid; 1 for none.
    """

    steps: int
    shift: float = 1.0

    def __post_init__(self) -> None:
        _check_steps(self.steps, least=1)
        shift_time(0.5, self.shift)

    def times(self) -> Float[np.ndarray, " k"]:
        """The steps + 1 times from exactly 1 to exactly 0, float32."""
        return shift_time(np.linspace(1.0, 0.0, self.steps + 1), self.shift).astype(np.float32)

    def evaluation_times(self) -> Float[np.ndarray, " k"]:
        """The model's own time of each evaluation of the velocity, in order, float32."""
        return self.times()[:-1]

    def __call__(
        self, velocity: Velocity, noise: Float[Array, "b n c"], keys: Key[Array, " b"]
    ) -> Float[Array, "b n c"]:
        """Latents at t = 0 from noise at t = 1, float32.

        Args:
          velocity: velocity(z, t): float32 (b, n, c), float32 (b,) → (b, n, c).
          noise: the state at t = 1.
          keys: one key per sample, read by samplers that add noise.
        """
        times = jnp.asarray(self.times())

        def step(i: Array, z: Array) -> Array:
            return self.step(velocity, keys, times, i, z)

        return jax.lax.fori_loop(0, self.steps, step, noise.astype(jnp.float32))

    def step(self, velocity: Velocity, keys: Key[Array, " b"], times: Array, i: Array, z: Array) -> Array:
        """The state at times[i + 1] from the state `z` at times[i]."""
        return z + (times[i + 1] - times[i]) * _at(velocity, z, times[i])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Heun(Euler):
    """Equation (3): 2 · `steps` evaluations, the last one at t = 0, where a velocity is still well defined."""

    def evaluation_times(self) -> Float[np.ndarray, " k"]:
        """See `Euler`."""
        times = self.times()
        return np.stack([times[:-1], times[1:]], axis=1).reshape(-1)

    def step(self, velocity: Velocity, keys: Key[Array, " b"], times: Array, i: Array, z: Array) -> Array:
        """See `Euler`."""
        h = times[i + 1] - times[i]
        first = _at(velocity, z, times[i])
        second = _at(velocity, z + h * first, times[i + 1])
        return z + h / 2 * (first + second)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamsBashforth(Euler):
    """Equation (7), of second order: `steps` evaluations, half of Heun's."""

    def __call__(
        self, velocity: Velocity, noise: Float[Array, "b n c"], keys: Key[Array, " b"]
    ) -> Float[Array, "b n c"]:
        """See `Euler`."""
        times = jnp.asarray(self.times())

        def step(i: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
            z, before = state
            h, h_before = times[i + 1] - times[i], times[i] - times[jnp.maximum(i - 1, 0)]
            r = jnp.where(i == 0, 0.0, h / jnp.where(i == 0, 1.0, h_before))
            v = _at(velocity, z, times[i])
            return z + h * ((1 + r / 2) * v - r / 2 * before), v

        start = noise.astype(jnp.float32)
        return jax.lax.fori_loop(0, self.steps, step, (start, jnp.zeros_like(start)))[0]


LAST_STEPS = ("mean", "data")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EulerMaruyama(Euler):
    """Equations (5) and (6): `steps` evaluations, the last of them at `last_step`.

    Attributes:
      steps: number of steps, the noiseless one included, at least 2.
      shift: timestep shift of the grid; 1 for none. The grid is uniform, before the shift, from 1 to `last_step`.
      last_step: the model's own time at which the last step to 0 begins, in (0, 1).
      last: what the last step does. `mean` is (6) without its noise, as in SiT and REPA; it leaves −t ε̂ in the
        sample. `data` goes to the predicted data, z − t v.
      before_shift: `last_step` is a time before the shift: the last step begins at shift_time(last_step, shift).
    """

    last_step: float = 0.04
    last: str = "mean"
    before_shift: bool = False

    def __post_init__(self) -> None:
        _check_steps(self.steps, least=2)
        shift_time(0.5, self.shift)
        if not 0 < self.last_step < 1:
            raise ValueError(f"last_step must be a time between 0 and 1, got {self.last_step}")
        if self.last not in LAST_STEPS:
            raise ValueError(f"last {self.last!r} is unknown; choose one of {', '.join(LAST_STEPS)}")

    def times(self) -> Float[np.ndarray, " k"]:
        """The steps + 1 times: exactly 1, …, `last_step`, exactly 0, float32."""
        end = self.last_step if self.before_shift else unshift_time(self.last_step, self.shift)
        uniform = np.linspace(1.0, end, self.steps)
        return np.append(shift_time(uniform, self.shift), 0.0).astype(np.float32)

    def step(self, velocity: Velocity, keys: Key[Array, " b"], times: Array, i: Array, z: Array) -> Array:
        """See `Euler`."""
        t, h = times[i], times[i + 1] - times[i]
        is_last = i == self.steps - 1
        v = _at(velocity, z, t)
        score = -(z + (1 - t) * v) / t
        drift = v - t * score
        if self.last == "data":
            drift = jnp.where(is_last, v, drift)
        amplitude = jnp.where(is_last, 0.0, jnp.sqrt(2 * t * -h))
        return z + h * drift + amplitude * _normal(keys, i + 1, z.shape[1:])


def _check_steps(steps: int, *, least: int) -> None:
    if isinstance(steps, bool) or not isinstance(steps, int | np.integer) or steps < least:
        raise ValueError(f"steps must be a whole number of at least {least}, got {steps!r}")


SAMPLERS: dict[str, type] = {
    "euler": Euler,
    "heun": Heun,
    "euler_maruyama": EulerMaruyama,
    "adams_bashforth": AdamsBashforth,
    "dopri5": Dopri5,
}


def _intervals(value: Any) -> str | None:
    try:
        make_schedule(value)
    except ValueError as error:
        return f"holds intervals (from, to, weight): {error}"
    return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingSection:
    """From noise to latents."""

    operational: ClassVar[bool] = True
    sampler: str = option(
        "euler",
        "euler, heun, adams_bashforth, dopri5 (ODE; dopri5 chooses its steps) or euler_maruyama (SDE)",
        one_of(*SAMPLERS),
    )
    steps: int = option(250, "steps of the sampler", at_least(1))
    rtol: float = option(1e-3, "dopri5: tolerated error of a step, as a share of the values (SiT: 0.001)", above(0))
    atol: float = option(1e-6, "dopri5: tolerated error beside that share (SiT: 0.000001)", above(0))
    shift: float = option(0.4, "timestep shift of the sampling grid", above(0))
    shift_base: int = option(
        0, "shift by size: √(shift_base / values of a latent) in place of shift (RAE: 4096); 0 = off", at_least(0)
    )
    last_step: float = option(0.04, "length of the SDE's last, deterministic step")
    last_step_before_shift: bool = option(False, "last_step is a time before the shift, not the model's own")
    last: str = option(
        "mean", "the SDE's last step: mean (SiT, REPA), or data: to the predicted data", one_of(*LAST_STEPS)
    )
    guidance: tuple[Any, ...] = option(
        PAPER_SCHEDULE,
        "intervals (from, to, weight) or (from, to, weight, kind) over time; kinds: classifier_free, internal, auto",
        _intervals,
    )
    guided_channels: int = option(
        0, "channels that classifier-free guidance acts on, the first ones (LightningDiT: 3); 0 = all", at_least(0)
    )
    guided_calls: int = option(
        1, "with and without condition in 1 call on a batch twice as long, or in 2", at_least(1), at_most(2)
    )
    guide: str = option("", "working directory whose generator is the weaker one of autoguidance", path=True)
    guide_step: int = option(0, "its checkpoint to use; 0 = the newest", at_least(0))
    labels: str = option(
        "balanced",
        "classes of a set: balanced (as many of each) or random",
        one_of("balanced", "random"),
    )
    dtype: str = option(
        "",
        "dtype of matrix products in sampling and decoding: float32, bfloat16; empty = compute.dtype",
        one_of("", "float32", "bfloat16"),
    )
    batch: int = option(256, "images sampled at once", at_least(1))


def make_sampler(
    name: str,
    *,
    steps: int = 250,
    shift: float = 1.0,
    last_step: float = 0.04,
    last: str = "mean",
    before_shift: bool = False,
    rtol: float = 1e-3,
    atol: float = 1e-6,
) -> Any:
    """Builds the sampler called `name`, a key of `SAMPLERS`.

    Args:
      name: `euler`, `heun`, `adams_bashforth` or `dopri5` for the ODE, `euler_maruyama` for the SDE.
      steps, shift: as in each sampler; `dopri5` has no use for them.
      last_step, last, before_shift: as in `EulerMaruyama`; the ODE samplers have no use for them.
      rtol, atol: as in `Dopri5` alone.

    Raises:
      ValueError: the name is unknown (the nearest one is suggested) or a value is out of its range.
    """
    if name not in SAMPLERS:
        raise ValueError(f"sampler {name!r} is unknown; {nearest(name, SAMPLERS)}")
    values = {"steps": steps, "shift": shift, "last_step": last_step, "last": last, "before_shift": before_shift}
    values |= {"rtol": rtol, "atol": atol}
    kind = SAMPLERS[name]
    return kind(**{field.name: values[field.name] for field in dataclasses.fields(kind)})


def is_adaptive(settings: Any) -> bool:
    """Whether the sampler of the section `sampling` chooses its steps as it goes, and so how many evaluations."""
    return hasattr(SAMPLERS[settings.sampler], "counted")


def sample(sampler: Any, velocity: Velocity, keys: Key[Array, " b"], shape: tuple[int, int]) -> Float[Array, "b n c"]:
    """Draws one latent of `shape` (n, c) per key, float32: `initial_noise`, then the sampler. Jit-able."""
    return sampler(velocity, initial_noise(keys, shape), keys)
