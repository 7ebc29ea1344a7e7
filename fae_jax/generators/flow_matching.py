"""Flow matching (SiT, arXiv 2401.08740): a network learns the velocity of the straight path from data to noise.

    z_t = (1 − t) z + t ε,   v = ε − z,   L = mean (v̂(z_t, t, condition) − v)²                           (1)

t is uniform, or logit-normal, before the timestep shift of `fae_jax.diffusion.path`. What the network puts out may be
v, z or ε; the loss is that of the velocity it says. Added to L where their weights are not 0:

    1 − cos(v̂, v) over the channels of each token (LightningDiT, arXiv 2501.01423)                       (2)
    mean (v̂_mid − v)², of a second head at a middle block (internal guidance, arXiv 2512.24176)          (3)

Samples are drawn by any sampler of `fae_jax.diffusion.samplers` over the velocity, guided as
`fae_jax.diffusion.guidance` says.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from fae_jax.conditions import Condition
from fae_jax.conditions.nothing import Nothing
from fae_jax.diffusion.guidance import (
    NOTHING_TO_GUIDE_BY,
    autoguided,
    evaluations_at,
    function_evaluations,
    guided,
    internally_guided,
    make_schedule,
    of_kind,
)
from fae_jax.diffusion.path import CONVERTERS, TIME_DISTRIBUTIONS, convert, shift_of_size, training_pair
from fae_jax.diffusion.samplers import initial_noise, is_adaptive, make_sampler, sample
from fae_jax.generators.networks import NETWORKS
from fae_jax.kinds import find
from fae_jax.losses.vae import cosine
from fae_jax.nn.params import init_params, looped
from fae_jax.section import above, at_least, one_of, option, plug

Weaker = Callable[[Array, Array, Any], Array] | None  # a velocity(z, t, condition)
FLOOR = 0.05  # least divisor of a prediction's velocity, in training and in sampling alike (JiT, arXiv 2511.13720)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlowMatchingSection:
    """Flow matching on the straight path."""

    train_shift: float = option(0.4, "timestep shift in training; 1 = none, smaller = noisier", above(0))
    shift_base: int = option(
        0,
        "shift by size: √(shift_base / values of a latent) in place of train_shift (RAE: 4096); 0 = off",
        at_least(0),
    )
    times: str = option(
        "uniform", "training times before the shift: uniform or logit_normal", one_of(*TIME_DISTRIBUTIONS)
    )
    logit_mean: float = option(0.0, "mean of the logit of logit-normal times")
    logit_deviation: float = option(1.0, "its standard deviation", above(0))
    prediction: str = option(
        "velocity",
        "what the network puts out: velocity, data or noise; the loss is the velocity's",
        one_of(*CONVERTERS),
    )
    cosine_weight: float = option(
        0.0, "weight of 1 − cos of predicted and true velocity (LightningDiT: 1)", at_least(0)
    )
    middle_weight: float = option(0.5, "weight of the loss of a second head at a middle block", at_least(0))
    network: str = plug("dit", "the network that predicts the velocity: dit, or mmdit for text", "networks", NETWORKS)


def sampler_of(settings: Any, size: int = 0) -> Any:
    """The sampler that the section `sampling` describes, for latents of `size` values.

    Raises:
      ValueError: its name is unknown or a value is out of its range.
    """
    shift = shift_of_size(size, settings.shift_base) if settings.shift_base else settings.shift
    return make_sampler(
        settings.sampler,
        steps=settings.steps,
        shift=shift,
        last_step=settings.last_step,
        last=settings.last,
        before_shift=settings.last_step_before_shift,
        rtol=settings.rtol,
        atol=settings.atol,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlowMatching:
    """See `fae_jax.generators.Generator`.

    Attributes:
      network: see `fae_jax.generators.networks`.
      shape: tokens and channels of a latent.
      condition: what the network is told.
      train_shift: timestep shift in training; 1 = none, smaller = noisier.
      times, logit_mean, logit_deviation: distribution of training times before it.
      prediction: what the network puts out, a key of `CONVERTERS`.
      cosine_weight, middle_weight: of equations (2) and (3).
    """

    network: nn.Module
    shape: tuple[int, int]
    condition: Condition
    train_shift: float
    times: str = "uniform"
    logit_mean: float = 0.0
    logit_deviation: float = 1.0
    prediction: str = "velocity"
    cosine_weight: float = 0.0
    middle_weight: float = 0.5

    Section = FlowMatchingSection

    @classmethod
    def build(
        cls, section: Any, *, grid: tuple[int, int], channels: int, condition: Condition, compute: Any
    ) -> FlowMatching:
        """From the section `generator.flow_matching`."""
        network = find("networks", NETWORKS, section.network)
        made = network.build(getattr(section, section.network), grid=grid, condition=condition, compute=compute)
        shape = (grid[0] * grid[1], channels)
        base, shift = section.shift_base, section.train_shift
        names = ("times", "logit_mean", "logit_deviation", "prediction", "cosine_weight", "middle_weight")
        return cls(
            network=made,
            shape=shape,
            condition=condition,
            train_shift=shift_of_size(shape[0] * shape[1], base) if base else shift,
            **{name: getattr(section, name) for name in names},
        )

    def looped(self, dtype: str = "") -> FlowMatching:
        """With blocks compiled once, for programs that run few times; in `dtype` where it is given."""
        return dataclasses.replace(self, network=looped(self.network, dtype))

    def init(self, key: Key[Array, ""]) -> Any:
        return init_params(self.network, key, jnp.zeros((1, *self.shape)), jnp.zeros((1,)), self.condition.none(1))

    @property
    def has_middle(self) -> bool:
        """Whether the network has a second head at a middle block."""
        return bool(getattr(self.network, "middle", 0))

    def velocity(
        self, params: Any, z: Float[Array, "b n c"], t: Float[Array, " b"], condition: Any
    ) -> Float[Array, "b n c"]:
        """v̂ of equation (1)."""
        return self._as_velocity(self.network.apply({"params": params}, z, t, condition), z, t)

    def velocities(
        self, params: Any, z: Float[Array, "b n c"], t: Float[Array, " b"], condition: Any
    ) -> tuple[Float[Array, "b n c"], Float[Array, "b n c"]]:
        """v̂ of equation (1) and v̂_mid of (3), in one pass; of networks that have a second head."""
        outputs = self.network.apply({"params": params}, z, t, condition, middle=True)
        last, middle = (self._as_velocity(output, z, t) for output in outputs)
        return last, middle

    def _as_velocity(self, output: Any, z: Array, t: Array) -> Any:
        if self.prediction == "velocity":
            return output
        return convert(output, z, t, source=self.prediction, target="velocity", floor=FLOOR)

    def loss(
        self,
        params: Any,
        z: Float[Array, "b n c"],
        condition: Any,
        keys: Key[Array, " b"],
        step: Array,
        tokens_after: int = 0,
    ) -> Any:
        pair = training_pair(
            keys,
            z,
            self.train_shift,
            distribution=self.times,
            location=self.logit_mean,
            scale=self.logit_deviation,
        )
        given, terms = (pair.noisy, pair.time), {}
        asked = {"middle": self.has_middle, "tokens_after": tokens_after}
        asked = {name: value for name, value in asked.items() if value}
        outputs = self.network.apply({"params": params}, *given, condition, **asked)
        outputs = outputs if asked else (outputs,)
        velocity = self._as_velocity(outputs[0], *given)
        if self.has_middle:
            terms["middle_loss"] = jnp.mean((self._as_velocity(outputs[1], *given) - pair.velocity) ** 2)
        loss = jnp.mean((velocity - pair.velocity) ** 2)
        if self.cosine_weight:
            terms["cosine_loss"] = 1 - cosine(velocity, pair.velocity)
        if terms:
            weights = {"middle_loss": self.middle_weight, "cosine_loss": self.cosine_weight}
            terms = {"velocity_loss": loss, **terms}
            loss = loss + sum(weight * terms[name] for name, weight in weights.items() if name in terms)
        return (loss, terms, outputs[-1]) if tokens_after else (loss, terms)

    def sample(
        self,
        params: Any,
        keys: Key[Array, " b"],
        condition: Any,
        settings: Any,
        weaker: Weaker = None,
    ) -> Float[Array, "b n c"]:
        """See `Generator`; `weaker` is the velocity(z, t, condition) of another network, for autoguidance."""
        return sample(*self._drawn_by(params, condition, settings, weaker), keys, self.shape)

    def counted(
        self,
        params: Any,
        keys: Key[Array, " b"],
        condition: Any,
        settings: Any,
        weaker: Weaker = None,
    ) -> tuple[Float[Array, "b n c"], Int[Array, " b"]]:
        """See `Generator`."""
        sampler, velocity = self._drawn_by(params, condition, settings, weaker)
        cost = functools.partial(evaluations_at, make_schedule(settings.guidance))
        return sampler.counted(velocity, initial_noise(keys, self.shape), cost)

    def _drawn_by(
        self, params: Any, condition: Any, settings: Any, weaker: Weaker
    ) -> tuple[Any, Callable[[Array, Array], Array]]:
        """The sampler, and the guided velocity that it integrates, of latents and times alone."""
        schedule = make_schedule(settings.guidance)
        internal, auto = (of_kind(schedule, kind) for kind in ("internal", "auto"))
        velocity: Callable[[Array, Array, Any], Array] = functools.partial(self.velocity, params)
        if internal:
            velocity = internally_guided(functools.partial(self.velocities, params), internal)
        if auto:
            if weaker is None:
                raise ValueError(NO_GUIDE)
            velocity = autoguided(velocity, weaker, auto)
        velocity = guided(
            velocity,
            of_kind(schedule, "classifier_free"),
            self.condition.none(1),
            channels=settings.guided_channels,
            calls=settings.guided_calls,
        )
        return sampler_of(settings, math.prod(self.shape)), lambda z, t: velocity(z, t, condition)

    def evaluations(self, settings: Any) -> int | None:
        schedule = make_schedule(settings.guidance)
        if of_kind(schedule, "internal") and not self.has_middle:
            raise ValueError(
                "field sampling.guidance holds internal guidance, and the generator has no head at a middle block: "
                "train one with middle=8 in the network's section, or leave it out"
            )
        if of_kind(schedule, "auto") and not settings.guide:
            raise ValueError(NO_GUIDE)
        unconditional = isinstance(self.condition, Nothing)
        if unconditional and any(weight != 1 for _, _, weight in of_kind(schedule, "classifier_free")):
            raise ValueError(NOTHING_TO_GUIDE_BY)
        sampler = sampler_of(settings, math.prod(self.shape))
        return None if is_adaptive(settings) else function_evaluations(sampler.evaluation_times(), schedule)


NO_GUIDE = "field sampling.guidance holds autoguidance: name the weaker network's directory in sampling.guide"
