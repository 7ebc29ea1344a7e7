"""What a model is made of: the contract between those who keep its parts and those who use them."""

from __future__ import annotations

import abc
import functools
from typing import Any

import jax

from fae_jax.conditions import make_condition
from fae_jax.data.stores.statistics import LatentStatistics
from fae_jax.generators import Generator, make_generator
from fae_jax.parallel.rules import shardings


class Parts(abc.ABC):
    """The parts of a model, wherever they are kept: a working directory, a bundle, or shapes in `fae compile`.

    Attributes:
      config: the experiment's configuration.
      mesh: the devices that parameters are put on.
      tokenizer: see `fae_jax.tokenizers.Tokenizer`.
      statistics: of the latents that the generator was trained on; asking raises ValueError where there is none.
      classes: names of the classes, by label; () where there are none.
      read_generator: {what `params` was asked for: {"checkpoint": its step, "ema": decay of the average, or None}} of
        the generator's weights that have been read; with the "stage" that trained them, where that is a later one.
    """

    config: Any
    mesh: jax.sharding.Mesh

    @functools.cached_property
    def read_generator(self) -> dict[str | None, dict[str, Any]]:
        return {}

    @property
    def here(self) -> Parts:
        """The same, whole on this host's devices, for what hosts do each by themselves; itself where there is one."""
        return self

    @property
    @abc.abstractmethod
    def tokenizer(self) -> Any: ...

    @property
    @abc.abstractmethod
    def has_generator(self) -> bool:
        """Whether there is a generator to draw with."""

    @property
    @abc.abstractmethod
    def statistics(self) -> LatentStatistics: ...

    @property
    @abc.abstractmethod
    def classes(self) -> tuple[str, ...]: ...

    def text(self, mesh: jax.sharding.Mesh | None = None) -> Any:
        """Parameters of the text tower that the generator reads by, on the mesh.

        Raises:
          ValueError, FileNotFoundError, OSError: they are not there or do not fit.
        """
        place = functools.partial(shardings, mesh=mesh or self.mesh)
        params = make_condition(self.config).opened(place).params
        return jax.device_put(params, place(params))

    @abc.abstractmethod
    def params(self, part: str, ema: str | None = "") -> Any:
        """Parameters of a part of the tokenizer, of "generator", or of "text", on the mesh.

        Args:
          part: its name.
          ema: decay of the EMA, "" for the largest kept, None for the raw weights.

        Raises:
          ValueError: they are not there, or no such EMA was kept; says what makes them.
        """

    def another(self, path: str, step: int) -> Any:
        """The `FAE` of another working directory, at the step of its generator's checkpoint, 0 for the newest.

        Raises:
          ValueError, FileNotFoundError: there is none, or none can be opened from here.
        """
        raise ValueError(
            f"field sampling.guide={path}: a weaker network can be opened from a working directory alone"
        )

    def network(self, network: Any, weights: str = "") -> Any:
        """Parameters of a frozen network that losses look through, on the mesh.

        Args:
          network: see `fae_jax.extractors.networks.Network`.
          weights: their file; "" for what `fae weights pull` brought.

        Raises:
          ValueError, FileNotFoundError: they are not there, or another network's.
        """
        params = network.load(weights)
        return jax.device_put(params, shardings(params, self.mesh))


def generator_of(parts: Parts) -> Generator:
    """The generator that a model's configuration describes, for its tokenizer's latents.

    Raises:
      ValueError: sizes do not divide.
    """
    tokenizer = parts.tokenizer
    condition = make_condition(parts.config)
    return make_generator(parts.config, grid=tokenizer.grid, channels=tokenizer.channels, condition=condition)
