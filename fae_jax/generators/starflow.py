"""STARFlow (arXiv 2506.06276): an invertible map from latents to noise, trained by its exact likelihood.

A flow block takes the tokens u_1, …, u_n of a latent in its own order, and with shifts and scales that a causal
transformer (`networks.causal`) gives each token from those before it,

    e_i = (u_i − μ_i(u_<i)) / α_i(u_<i),   log |∂e/∂u| = −Σ_i log α_i                              (1)

S shallow blocks come first on the way to the noise, in alternating order, and a deep one that alone is told the
condition comes last, in the order of the grid's rows. With ε ~ N(0, 1) the latents z are trained on with noise,

    x = z + σ ε,   L = −(1/nc) log p(x),   log p(x) = log N(e; 0, 1) + Σ log |∂e/∂u|               (2)

so that L / log 2 is in bits per dimension, of standardised latents with that noise. Samples are x = e α + μ, from the
deep block back to the first, token by token: one evaluation of a block for each token. Or `block` tokens together, by
Jacobi's iteration from the noise:

    u ← e α(u_<) + μ(u_<)     `iterations` times; as many as tokens are exact, fewer are enough    (3)

Denoising takes the noise of (2) off again, by the score of the model itself (Tweedie):

    z = x + σ² ∇ log p(x)                                                                          (4)

Guidance of weight w, with the deep block's results told the condition (c) and told nothing (u): the Gaussian
p_c (p_c / p_u)^(w − 1), but that p_u counts as no narrower than p_c,

    s = min(α_c / α_u, 1)²,  d = 1 + (w − 1)(1 − s),  α = α_c / √d,  μ = (w μ_c − (w − 1) s μ_u) / d      (5)

Token i of n is at the time 1 − i/n of `sampling.guidance`: its first at 1, its last at 1/n. This generator has no
velocity: `sampling.sampler`, `steps`, `shift` and `last_step` mean nothing to it.

2,048 wide, with 18 layers in the deep block and 2 in each of five shallow ones, on 256×32 latents of 1000 classes, it
has 1,413,286,464 parameters (1.4 B in the paper).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Array, Float, Key

from fae_jax.conditions import Condition
from fae_jax.conditions.nothing import Nothing
from fae_jax.diffusion.guidance import NOTHING_TO_GUIDE_BY, guidance_weight, make_schedule, of_kind, split
from fae_jax.diffusion.samplers import initial_noise
from fae_jax.generators.networks.causal import CausalTransformer
from fae_jax.nn.params import init_params, looped
from fae_jax.section import above, at_least, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class StarFlowSection:
    """A normalizing flow of causal transformers."""

    width: int = option(2048, "channels", at_least(1))
    depth: int = option(18, "layers of the deep block", at_least(1))
    shallow_blocks: int = option(5, "shallow blocks before it", at_least(1))
    shallow_depth: int = option(2, "layers of each", at_least(1))
    heads: int = option(32, "attention heads", at_least(1))
    hidden: int = option(8192, "inner width of the feed-forward", at_least(1))
    clip: float = option(4.0, "shifts and scales are softly clipped to this", above(0))
    noise: float = option(0.3, "standard deviation of the noise on training latents", at_least(0))
    block: int = option(
        1, "tokens drawn together, by Jacobi's iteration; 1 = one by one", at_least(1), operational=True
    )
    iterations: int = option(
        1, "iterations of a block of tokens; as many as tokens = exact", at_least(1), operational=True
    )
    denoise: bool = option(True, "take the training noise off samples, by the model's score", operational=True)

    def check(self) -> None:
        if self.width % self.heads or self.width // self.heads % 4:
            raise ValueError(f"heads={self.heads} must divide width={self.width} into heads of a multiple of 4")
        if self.iterations > self.block:
            raise ValueError(f"iterations={self.iterations} are more than block={self.block} needs: it is exact then")


@dataclasses.dataclass(frozen=True, kw_only=True)
class StarFlow:
    """See the module, and `fae_jax.generators.Generator`.

    Attributes:
      deep, shallow: the transformer of the deep block, and that of each shallow one.
      shallow_blocks: S.
      shape: tokens and channels of a latent.
      condition: what the deep block is told.
      noise, block, iterations, denoise: see `StarFlowSection`.
    """

    deep: CausalTransformer
    shallow: CausalTransformer
    shallow_blocks: int
    shape: tuple[int, int]
    condition: Condition
    noise: float
    block: int
    iterations: int
    denoise: bool

    Section = StarFlowSection
    heeds = ("guidance",)

    @classmethod
    def build(
        cls, section: StarFlowSection, *, grid: tuple[int, int], channels: int, condition: Condition, compute: Any
    ) -> StarFlow:
        """From the section `generator.starflow`.

        Raises:
          ValueError: `block` does not divide the tokens.
        """
        tokens = grid[0] * grid[1]
        if tokens % section.block:
            raise ValueError(f"field generator.starflow.block={section.block} must divide the {tokens} tokens")
        network = functools.partial(
            CausalTransformer,
            grid=grid,
            channels=channels,
            width=section.width,
            heads=section.heads,
            hidden=section.hidden,
            classes=condition.classes,
            clip=section.clip,
            **compute.blocks,
        )
        return cls(
            deep=network(depth=section.depth, conditioned=True),
            shallow=network(depth=section.shallow_depth, conditioned=False),
            shallow_blocks=section.shallow_blocks,
            shape=(tokens, channels),
            condition=condition,
            noise=section.noise,
            block=section.block,
            iterations=section.iterations,
            denoise=section.denoise,
        )

    def looped(self, dtype: str = "") -> StarFlow:
        """With layers compiled once, for programs that run few times; in `dtype` where it is given."""
        return dataclasses.replace(self, deep=looped(self.deep, dtype), shallow=looped(self.shallow, dtype))

    def init(self, key: Key[Array, ""]) -> Any:
        deep, shallow = jax.random.split(key)
        u, none = jnp.zeros((1, *self.shape)), self.condition.none(1)
        each = jax.vmap(lambda key: init_params(self.shallow, key, u, none))
        return {
            "deep": init_params(self.deep, deep, u, none),
            "shallow": each(jax.random.split(shallow, self.shallow_blocks)),
        }

    def _first_order(self, x: Float[Array, "b n c"]) -> Float[Array, "b n c"]:
        """Between the grid's rows and the order of the first shallow block: blocks alternate, and the deep one's is
        that of the rows."""
        return x[:, ::-1] if self.shallow_blocks % 2 else x

    def forward(
        self, params: Any, x: Float[Array, "b n c"], condition: Any
    ) -> tuple[Float[Array, "b n c"], Float[Array, " b"]]:
        """Noise e of latents with noise, and log |∂e/∂x|: equation (1) of all blocks."""

        def couple(network: CausalTransformer, params: Any, u: Array) -> tuple[Array, Array]:
            shift, scale = network.apply({"params": params}, u, condition)
            return (u - shift) / scale, -jnp.sum(jnp.log(scale), axis=(1, 2))

        def shallow(u: Array, params: Any) -> tuple[Array, Array]:
            u, change = couple(self.shallow, params, u)
            return u[:, ::-1], change

        unroll = 1 if self.shallow.scan else self.shallow_blocks
        u, changes = jax.lax.scan(shallow, self._first_order(x), params["shallow"], unroll=unroll)
        u, change = couple(self.deep, params["deep"], u)
        return u, change + changes.sum(axis=0)

    def log_density(self, params: Any, x: Float[Array, "b n c"], condition: Any) -> Float[Array, " b"]:
        """log p(x) of equation (2), in nats."""
        e, change = self.forward(params, x, condition)
        return change - jnp.sum(0.5 * e**2 + 0.5 * math.log(2 * math.pi), axis=(1, 2))

    def loss(
        self, params: Any, z: Float[Array, "b n c"], condition: Any, keys: Key[Array, " b"], step: Array
    ) -> tuple[Float[Array, ""], dict[str, Array]]:
        noisy = z.astype(jnp.float32) + self.noise * initial_noise(keys, self.shape)
        loss = -jnp.mean(self.log_density(params, noisy, condition)) / math.prod(self.shape)
        return loss, {"bits_per_dimension": loss / math.log(2)}

    def inverse(
        self, params: Any, e: Float[Array, "b n c"], condition: Any, weights: Float[Any, " n"] | None = None
    ) -> Float[Array, "b n c"]:
        """Latents with noise from noise; `weights` of guidance for each token, None for none."""
        u = self._invert(self.deep, params["deep"], e, condition, weights)

        def shallow(u: Array, params: Any) -> tuple[Array, None]:
            return self._invert(self.shallow, params, u[:, ::-1], condition, None), None

        u, _ = jax.lax.scan(shallow, u, params["shallow"], reverse=True)
        return self._first_order(u)

    def _invert(
        self, network: CausalTransformer, params: Any, e: Array, condition: Any, weights: Any
    ) -> Float[Array, "b n c"]:
        """A block's u of equation (1), by (3); if guided, each example beside a twin that is told nothing."""
        (count, tokens, _), twins = e.shape, 1 if weights is None else 2
        apply = functools.partial(network.apply, {"params": params})
        if weights is not None:
            weights = jnp.asarray(weights, jnp.float32)[:, None]
            none = self.condition.none(count)
            both = jax.tree.map(lambda *leaves: jnp.stack([*map(jnp.asarray, leaves)], axis=1), condition, none)
            condition = jax.tree.map(lambda leaf: rearrange(leaf, "b two ... -> (b two) ..."), both)
        beginning, cache, seen = apply(condition, count * twins, method="begin")

        def iterate(start: Array, state: tuple[Array, Any]) -> tuple[Array, Any]:
            u, cache = state
            before = jnp.repeat(jax.lax.dynamic_slice_in_dim(u, start, self.block, axis=1), twins, axis=0)
            (shift, scale), cache = apply(before, cache, start, seen, method="next")
            if weights is not None:
                here = jax.lax.dynamic_slice_in_dim(weights, start, self.block)
                shifts, scales = (rearrange(x, "(b two) n c -> two b n c", two=2) for x in (shift, scale))
                shift, scale = mixed(shifts, scales, here)
            drawn = jax.lax.dynamic_slice_in_dim(e, start, self.block, axis=1) * scale + shift
            return jax.lax.dynamic_update_slice_in_dim(u, drawn, start + 1, axis=1), cache

        def draw(i: Array, state: tuple[Array, Any]) -> tuple[Array, Any]:
            return jax.lax.fori_loop(0, self.iterations, lambda _, state: iterate(i * self.block, state), state)

        u = jnp.concatenate([beginning[:count], e], axis=1)
        u, _ = jax.lax.fori_loop(0, tokens // self.block, draw, (u, cache))
        return u[:, 1:]

    def sample(self, params: Any, keys: Key[Array, " b"], condition: Any, settings: Any) -> Float[Array, "b n c"]:
        x = self.inverse(params, initial_noise(keys, self.shape), condition, self._weights(settings))
        if self.denoise and self.noise:
            score = jax.grad(lambda x: self.log_density(params, x, condition).sum())(x)
            x = x + self.noise**2 * score
        return x

    def _weights(self, settings: Any) -> Any:
        """The weight of guidance for each token, None where all are 1.

        Raises:
          ValueError: one is negative, or of another kind than classifier-free, or there is nothing to guide by.
        """
        schedule = make_schedule(settings.guidance)
        if any(split(interval)[1] != "classifier_free" for interval in schedule):
            raise ValueError("field sampling.guidance: starflow knows the kind classifier_free alone")
        times = 1 - np.arange(self.shape[0], dtype=np.float32) / self.shape[0]
        weights = guidance_weight(of_kind(schedule, "classifier_free"), times)
        if not isinstance(weights, np.ndarray):
            return weights
        if weights.min() < 0:
            raise ValueError(f"field sampling.guidance: starflow has weights of at least 0, got {weights.min():g}")
        if (weights == 1).all():
            return None
        if isinstance(self.condition, Nothing):
            raise ValueError(NOTHING_TO_GUIDE_BY)
        return weights

    def evaluations(self, settings: Any) -> int:
        """Evaluations of single flow blocks, on one token or on `block` of them: those of (3), one more in which the
        deep block reads the condition, twice as many of the deep block where it is guided, and those of (4)."""
        each = self.shape[0] // self.block * self.iterations
        twins = 1 if self._weights(settings) is None else 2
        denoising = self.shallow_blocks + 1 if self.denoise and self.noise else 0
        return twins * (each + 1) + self.shallow_blocks * each + denoising


def mixed(shift: Float[Array, "2 b n c"], scale: Float[Array, "2 b n c"], weight: Any) -> tuple[Array, Array]:
    """Equation (5) for results that are told the condition and nothing, in this order."""
    s = jnp.minimum(scale[0] / scale[1], 1) ** 2
    d = 1 + (weight - 1) * (1 - s)
    return (weight * shift[0] - (weight - 1) * s * shift[1]) / d, scale[0] / jnp.sqrt(d)
