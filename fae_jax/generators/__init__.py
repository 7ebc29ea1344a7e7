"""Generators: what learns to make latents from noise. The contract, and the table of kinds.

A kind is one file here, or an entry point in the group `fae_jax.generators` of another package: a class with

    Section     its part of the configuration, `generator.<kind>`, a frozen dataclass of options
    build(section, *, grid, channels, condition, compute) → a `Generator`
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from jaxtyping import Array, Float, Key

from fae_jax.conditions import Condition
from fae_jax.kinds import find

GENERATORS = {
    "flow_matching": "fae_jax.generators.flow_matching:FlowMatching",
    "mean_flow": "fae_jax.generators.mean_flow:MeanFlow",
    "starflow": "fae_jax.generators.starflow:StarFlow",
}


@runtime_checkable
class Generator(Protocol):
    """Functions over standardised latents z (b, n, c), float32; one key for each example.

    `settings` are the configuration's section `sampling`: sampler, steps, guidance and more. A kind that has no
    use for all of them has an attribute `heeds`, the names of those that mean something to it; what it needs beside
    them stands in its own section, as operational options. One that can be aligned (`fae_jax.generators.alignment`)
    has a `network`, and its `loss` takes `tokens_after=k`: it then also returns the network's tokens after block k.
    """

    condition: Condition

    def init(self, key: Key[Array, ""]) -> Any:
        """Fresh parameters."""
        ...

    def loss(
        self, params: Any, z: Float[Array, "b n c"], condition: Any, keys: Key[Array, " b"], step: Array
    ) -> tuple[Float[Array, ""], dict[str, Array]]:
        """What is minimised, a mean over examples, and what is watched beside it."""
        ...

    def sample(self, params: Any, keys: Key[Array, " b"], condition: Any, settings: Any) -> Float[Array, "b n c"]:
        """One latent for each key; latent i is a function of key i and condition i alone."""
        ...

    def evaluations(self, settings: Any) -> int | None:
        """Network evaluations that one sample really takes; None where they are known only as it is drawn: then
        `counted`, called as `sample`, returns the latents and those of each, (b,).

        Raises:
          ValueError: the settings do not fit this generator.
        """
        ...


def make_generator(config: Any, *, grid: tuple[int, int], channels: int, condition: Condition) -> Generator:
    """The generator that the configuration's section `generator` describes, for latents of that grid and width.

    Raises:
      ValueError: its kind is unknown, or sizes do not divide.
    """
    kind = config.generator.kind
    section = getattr(config.generator, kind)
    made = find("generators", GENERATORS, kind)
    return made.build(section, grid=grid, channels=channels, condition=condition, compute=config.compute)
