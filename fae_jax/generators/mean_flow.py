"""MeanFlow (arXiv 2505.13447) and improved MeanFlow (arXiv 2512.02012): from noise to latents in one step, or few.

A network learns the velocity averaged from r to t ≥ r along the straight path z_t = (1 − t) z + t ε, v = ε − z,

    (t − r) u(z_t, r, t) = ∫_r^t v dτ,   so that   u = v − (t − r) du/dt                           (1)

where d/dt goes along the path: v ∂_z + ∂_t, a Jacobian-vector product of the network with a tangent w. What is
minimised is the distance between both sides of (1), with one network on both and no gradient through du/dt:

    Δ = û + (t − r) sg(dû/dt) − ṽ,   L = mean ‖Δ‖² / sg(‖Δ‖² + c)^p                                (2)

ṽ is v itself, or guided. MeanFlow's tangent is w = ṽ; the improved one's is the network's own v̂ = û(z_t, t, t), so
that (2) regresses a function of z_t alone on v. A share of examples has r = t, where (2) is flow matching.

A sample takes a network evaluation a step: z_r = z_t − (t − r) û(z_t, r, t).

Guidance (c: told the condition; u: told nothing), by `guidance`:

    sampling    ṽ = v; û of both conditions are combined when sampling, as `sampling.guidance` says: two evaluations
    trained     ṽ = a v + k û_c(z_t, t, t) + (1 − a − k) û_u(z_t, t, t) in an interval of times (MeanFlow): weight
                a / (1 − k) for good, at no cost in sampling                                           (3)
    asked       ṽ = v + (1 − 1/w) (û_c(z_t, t, t) − û_u(z_t, t, t)) for low ≤ t ≤ high (improved MeanFlow): w and its
                interval are inputs of the network, and `sampling.guidance` is one interval (low, high, w)   (4)

For (4), w in training has a density in proportion to 1/w on [1, `most`], low is uniform on [0, ½], high on [½, 1];
where r = t the interval is all of [0, 1]. Examples that are trained without their condition have ṽ = v.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Bool, Float, Key

from fae_jax.conditions import Condition
from fae_jax.conditions.nothing import Nothing
from fae_jax.diffusion.guidance import (
    NOTHING_TO_GUIDE_BY,
    Schedule,
    function_evaluations,
    guided,
    make_schedule,
    of_kind,
    split,
)
from fae_jax.diffusion.path import TIME_DISTRIBUTIONS, along, interpolate, sample_time, shift_of_size
from fae_jax.diffusion.samplers import Euler, initial_noise
from fae_jax.generators.networks import NETWORKS
from fae_jax.kinds import find
from fae_jax.nn.params import init_params, looped
from fae_jax.section import above, at_least, numbers, one_of, option, plug

GUIDANCE = ("sampling", "trained", "asked")
ALWAYS = (0.0, 1.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeanFlowSection:
    """Average velocities."""

    improved: bool = option(True, "the tangent is the network's own velocity (arXiv 2512.02012), not the example's")
    times: str = option(
        "logit_normal", "times before the shift: uniform or logit_normal", one_of(*TIME_DISTRIBUTIONS)
    )
    logit_mean: float = option(-0.4, "mean of the logit of logit-normal times")
    logit_deviation: float = option(1.0, "its standard deviation", above(0))
    train_shift: float = option(1.0, "timestep shift in training; 1 = none, smaller = noisier", above(0))
    equal: float = option(
        0.5,
        "share of examples with r = t (MeanFlow: 0.75)",
        lambda share: None if 0 <= share <= 1 else "is a share and must be in [0, 1]",
    )
    power: float = option(1.0, "p of the loss's weights 1 / (‖Δ‖² + c)^p; 0 = the squared error", at_least(0))
    floor: float = option(1e-3, "their c (improved MeanFlow: 0.01)", above(0))
    guidance: str = option(
        "sampling",
        "sampling (two evaluations), trained (one weight for good) or asked (an input of the network)",
        one_of(*GUIDANCE),
    )
    weight: float = option(1.0, "trained: share a of the example's velocity; a / (1 − mix) is the weight", above(0))
    mix: float = option(
        0.0, "trained: share k of the conditional prediction (MeanFlow XL/2: 0.92, a = 0.2)", at_least(0)
    )
    interval: tuple[float, ...] = option(
        ALWAYS, "trained: times between which it is guided", numbers(2, "two times", lambda a, b: 0 <= a < b <= 1)
    )
    most: float = option(8.0, "asked: largest weight", above(1))
    network: str = plug("dit", "the network, told several numbers in place of a time: dit", "networks", NETWORKS)

    def check(self) -> None:
        if self.mix >= 1:
            raise ValueError(f"mix={self.mix} must be below 1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeanFlow:
    """See the module, and `fae_jax.generators.Generator`.

    Attributes:
      network: called with latents, numbers (b, k) and the condition, where the numbers are t, t − r and, where
        guidance is asked for, 1 − 1/w, low and high; see `fae_jax.generators.networks`.
      shape: tokens and channels of a latent.
      condition: what the network is told.
      fields: the section `generator.mean_flow`.
    """

    network: nn.Module
    shape: tuple[int, int]
    condition: Condition
    fields: MeanFlowSection

    Section = MeanFlowSection
    heeds = ("steps", "shift", "shift_base", "guidance")

    @classmethod
    def build(
        cls, section: Any, *, grid: tuple[int, int], channels: int, condition: Condition, compute: Any
    ) -> MeanFlow:
        """From the section `generator.mean_flow`.

        Raises:
          ValueError: the network has a head that this generator has no use for.
        """
        network = find("networks", NETWORKS, section.network)
        made = network.build(getattr(section, section.network), grid=grid, condition=condition, compute=compute)
        if getattr(made, "middle", 0):
            raise ValueError(f"field generator.mean_flow.dit.middle must be 0 for mean_flow, got {made.middle}")
        return cls(network=made, shape=(grid[0] * grid[1], channels), condition=condition, fields=section)

    def looped(self, dtype: str = "") -> MeanFlow:
        """With blocks compiled once, for programs that run few times; in `dtype` where it is given."""
        return dataclasses.replace(self, network=looped(self.network, dtype))

    def init(self, key: Key[Array, ""]) -> Any:
        told = jnp.zeros((1, 5 if self.fields.guidance == "asked" else 2))
        return init_params(self.network, key, jnp.zeros((1, *self.shape)), told, self.condition.none(1))

    def average(
        self,
        params: Any,
        z: Float[Array, "b n c"],
        r: Float[Array, " b"],
        t: Float[Array, " b"],
        condition: Any,
        asked: Float[Array, "b 3"] | None = None,
        kernel: str = "",
        **more: Any,
    ) -> Any:
        """û(z, r, t) of equation (1), (b, n, c); `asked` are low, high and w of equation (4), `kernel` another
        attention's, and `more` is for the network."""
        told = [t, t - r]
        if asked is not None:
            told += [1 - 1 / asked[:, 2], asked[:, 0], asked[:, 1]]
        network = self.network.clone(kernel=kernel) if kernel and hasattr(self.network, "kernel") else self.network
        return network.apply({"params": params}, z, jnp.stack(told, axis=1), condition, **more)

    def loss(
        self,
        params: Any,
        z: Float[Array, "b n c"],
        condition: Any,
        keys: Key[Array, " b"],
        step: Array,
        tokens_after: int = 0,
    ) -> Any:
        noise_keys, time_keys, guidance_keys = rearrange(
            jax.vmap(lambda key: jax.random.split(key, 3))(keys), "b three -> three b"
        )
        z, noise = z.astype(jnp.float32), initial_noise(noise_keys, self.shape)
        r, t = self._times(time_keys)
        noisy, velocity = interpolate(z, noise, t), noise - z
        asked = self._asked(guidance_keys, r == t) if self.fields.guidance == "asked" else None
        target, tangent = jax.lax.stop_gradient(self._target(params, noisy, t, velocity, condition, asked))

        def average(noisy: Array, r: Array, t: Array) -> tuple[Array, Any]:
            more = {"tokens_after": tokens_after} if tokens_after else {}
            outputs = self.average(params, noisy, r, t, condition, asked, _with_jvp(self.network), **more)
            return outputs if tokens_after else (outputs, ())

        tangents = (tangent, jnp.zeros_like(r), jnp.ones_like(t))
        u, rate, tokens = jax.jvp(average, (noisy, r, t), tangents, has_aux=True)
        error = u + along(t - r, z) * jax.lax.stop_gradient(rate) - target
        squared = jnp.sum(error**2, axis=(1, 2))
        weight = jax.lax.stop_gradient(squared + self.fields.floor) ** -self.fields.power
        loss, watched = jnp.mean(weight * squared), {"squared_error": jnp.mean(error**2)}
        return (loss, watched, tokens) if tokens_after else (loss, watched)

    def _times(self, keys: Key[Array, " b"]) -> tuple[Float[Array, " b"], Float[Array, " b"]]:
        """r and t of each example."""
        first, second, equal = rearrange(jax.vmap(lambda key: jax.random.split(key, 3))(keys), "b three -> three b")
        fields = self.fields
        either = [
            sample_time(
                key,
                fields.train_shift,
                distribution=fields.times,
                location=fields.logit_mean,
                scale=fields.logit_deviation,
            )
            for key in (first, second)
        ]
        t = jnp.maximum(*either)
        same = jax.vmap(lambda key: jax.random.bernoulli(key, fields.equal))(equal)
        return jnp.where(same, t, jnp.minimum(*either)), t

    def _asked(self, keys: Key[Array, " b"], same: Bool[Array, " b"]) -> Float[Array, "b 3"]:
        """low, high and w of equation (4) for each example."""
        drawn = jax.vmap(lambda key: jax.random.uniform(key, (3,)))(keys)
        low, high = jnp.where(same, 0.0, drawn[:, 0] / 2), jnp.where(same, 1.0, (1 + drawn[:, 1]) / 2)
        return jnp.stack([low, high, self.fields.most ** drawn[:, 2]], axis=1)

    def _target(
        self, params: Any, noisy: Array, t: Array, velocity: Array, condition: Any, asked: Array | None
    ) -> tuple[Float[Array, "b n c"], Float[Array, "b n c"]]:
        """ṽ and the tangent of equation (2)."""
        fields = self.fields
        if fields.guidance == "sampling":
            tangent = self.average(params, noisy, t, t, condition) if fields.improved else velocity
            return velocity, tangent
        low, high = fields.interval if asked is None else (asked[:, 0], asked[:, 1])
        inside = (t >= low) & (t <= high)
        none = jax.tree.map(lambda leaf, like: jnp.asarray(leaf, like.dtype), self.condition.none(len(t)), condition)
        told = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), condition, none)
        ones, zeros, both = jnp.ones_like(t), jnp.zeros_like(t), None
        weight = ones if asked is None else jnp.where(inside, asked[:, 2], 1.0)
        if asked is not None:
            both = jnp.concatenate([jnp.stack([zeros, ones, w], axis=1) for w in (weight, ones)])
        twice = [jnp.concatenate([x, x]) for x in (noisy, t)]
        conditional, unconditional = jnp.split(self.average(params, twice[0], twice[1], twice[1], told, both), 2)
        if asked is None:
            a, k = fields.weight, fields.mix
            target = a * velocity + k * conditional + (1 - a - k) * unconditional
        else:
            target = velocity + along(1 - 1 / weight, velocity) * (conditional - unconditional)
        differ = jax.tree.map(lambda a, b: jnp.any((a != b).reshape(len(t), -1), axis=1), condition, none)
        acts = inside & jnp.any(jnp.stack(jax.tree.leaves(differ)), axis=0)
        target = jnp.where(acts[:, None, None], target, velocity)
        return target, conditional if fields.improved else target

    def sample(self, params: Any, keys: Key[Array, " b"], condition: Any, settings: Any) -> Float[Array, "b n c"]:
        times, schedule = jnp.asarray(self._grid(settings).times()), self._schedule(settings)
        asked = None
        if self.fields.guidance == "asked":
            interval = schedule[0] if schedule else (*ALWAYS, 1.0)
            asked = jnp.broadcast_to(jnp.asarray(interval, jnp.float32), (len(keys), 3))

        def step(i: Array, z: Array) -> Array:
            t, r = times[i], times[i + 1]

            def average(z: Array, t: Array, condition: Any) -> Array:
                return self.average(params, z, jnp.full_like(t, r), t, condition, asked)

            acting = schedule if self.fields.guidance == "sampling" else ()
            u = guided(average, acting, self.condition.none(1))(z, jnp.full(len(z), t), condition)
            return z - (t - r) * u.astype(jnp.float32)

        return jax.lax.fori_loop(0, settings.steps, step, initial_noise(keys, self.shape))

    def _grid(self, settings: Any) -> Euler:
        """The steps' times.

        Raises:
          ValueError: there is none, or the shift is out of its range.
        """
        base = settings.shift_base
        shift = shift_of_size(self.shape[0] * self.shape[1], base) if base else settings.shift
        return Euler(steps=settings.steps, shift=shift)

    def _schedule(self, settings: Any) -> Schedule:
        """The intervals of `sampling.guidance`.

        Raises:
          ValueError: they do not fit the way of guidance that this generator is trained for.
        """
        schedule, way, field = make_schedule(settings.guidance), self.fields.guidance, "field sampling.guidance"
        if any(split(interval)[1] != "classifier_free" for interval in schedule):
            raise ValueError(f"{field}: mean_flow knows the kind classifier_free alone")
        schedule = of_kind(schedule, "classifier_free")
        known = [interval for interval in schedule if not isinstance(interval, jax.Array)]
        acting = len(known) < len(schedule) or any(interval[2] != 1 for interval in known)
        if isinstance(self.condition, Nothing) and (way != "sampling" or acting):
            raise ValueError(
                NOTHING_TO_GUIDE_BY
                if way == "sampling"
                else f"field generator.mean_flow.guidance must be sampling where condition.kind=none, got {way!r}"
            )
        if way == "trained" and acting:
            raise ValueError(f"{field} must be () where generator.mean_flow.guidance=trained: it is in the weights")
        most = self.fields.most
        if way == "asked" and (len(schedule) > 1 or any(not 1 <= interval[2] <= most for interval in known)):
            raise ValueError(
                f"{field} must be one interval (low, high, weight) of a weight from 1 to {most:g} where "
                "generator.mean_flow.guidance=asked"
            )
        return schedule

    def evaluations(self, settings: Any) -> int:
        schedule, times = self._schedule(settings), self._grid(settings).evaluation_times()
        return function_evaluations(times, schedule if self.fields.guidance == "sampling" else ())


def _with_jvp(network: nn.Module) -> str:
    """The attention kernel for Jacobian-vector products: `cudnn` and `splash` have none."""
    kernel = getattr(network, "kernel", "")
    if kernel == "auto":
        return "cpu" if jax.default_backend() == "cpu" else "xla"
    return "xla" if kernel in ("cudnn", "splash") else kernel
