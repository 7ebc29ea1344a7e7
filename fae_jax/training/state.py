"""What training is made of: players, and the state they leave from one step to the next."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array

from fae_jax.parallel.mesh import replicated
from fae_jax.parallel.rules import shardings
from fae_jax.parallel.xla_flags import jit_once

# (parameters, frozen, batch, keys of the examples, step) → (scalar loss, scalar metrics or a `Report`). `frozen` also
# holds the other players' parameters under their names, and everybody's memory by name under "memory". The loss is a
# mean over examples, so that microbatches add up.
Loss = Callable[[Any, Mapping[str, Any], Mapping[str, Array], Array, Array], tuple[Array, Any]]


class Report(NamedTuple):
    """What a loss says beside its value, where metrics are not all.

    Attributes:
      metrics: scalars for the log.
      measured: arrays, means over examples, of which `Player.remember` makes the next memory.
      handed: arrays by example that the batch holds for the losses of the players after this one.
    """

    metrics: Mapping[str, Array]
    measured: Any = ()
    handed: Mapping[str, Array] = {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Player:
    """One set of parameters with its own loss and optimizer.

    Attributes:
      init: key → parameters, a nested dict.
      loss: see `Loss`.
      optimizer: an optax transformation.
      start: the first step that it takes; before it, its loss is not computed and its state stays.
      memory: what its loss keeps from step to step, before the first one: () → a tree of arrays.
      remember: (memory, measured of the `Report`, averaged over the batch, step) → memory.
    """

    init: Callable[[Array], Any]
    loss: Loss
    optimizer: optax.GradientTransformation
    start: int = 0
    memory: Callable[[], Any] = dict
    remember: Callable[[Any, Any, Array], Any] = lambda memory, measured, step: memory


@flax.struct.dataclass
class PlayerState:
    """Parameters and optimizer state of one player; averages lie in the optimizer state."""

    params: Any
    optimizer: Any


@flax.struct.dataclass
class RememberingState(PlayerState):
    """The same of a player whose loss has a memory; the others' checkpoints are as they always were."""

    memory: Any


@flax.struct.dataclass
class TrainState:
    """Everything that a step changes; also the tree of its shapes, or of where its parts lie.

    Attributes:
      step: steps done, int32.
      skipped: steps skipped because a loss or gradient was not finite, int32.
      skipped_in_a_row: how many of the last steps were skipped, int32.
      players: name → `PlayerState`.
    """

    step: Any
    skipped: Any
    skipped_in_a_row: Any
    players: dict[str, PlayerState]


def initial_state(players: Mapping[str, Player], seed: int, given: Mapping[str, Any] | None = None) -> TrainState:
    """The state before the first step; each player's key derives from `seed` and its place.

    Args:
      given: parameters of players that do not start from scratch.
    """

    def start(place: int, name: str, player: Player) -> PlayerState:
        if given and name in given:
            params = given[name]
        else:
            params = player.init(jax.random.fold_in(jax.random.key(seed), place))
        own, memory = PlayerState(params=params, optimizer=player.optimizer.init(params)), player.memory()
        return RememberingState(params=own.params, optimizer=own.optimizer, memory=memory) if memory else own

    zero = lambda: jnp.zeros((), jnp.int32)
    started = {name: start(place, name, player) for place, (name, player) in enumerate(players.items())}
    return TrainState(step=zero(), skipped=zero(), skipped_in_a_row=zero(), players=started)


def state_shardings(players: Mapping[str, Player], mesh: Mesh) -> tuple[TrainState, TrainState]:
    """Shapes of the state and where its parts lie, without making it."""
    shapes = jax.eval_shape(lambda: initial_state(players, 0))
    places = shardings(shapes.players, mesh)
    whole = replicated(mesh)
    return shapes, TrainState(step=whole, skipped=whole, skipped_in_a_row=whole, players=places)


def create_state(
    players: Mapping[str, Player], seed: int, mesh: Mesh, given: Mapping[str, Any] | None = None
) -> TrainState:
    """`initial_state`, made where it will lie: no device ever holds all of it."""
    _, places = state_shardings(players, mesh)
    return jit_once(lambda given: initial_state(players, seed, given), out_shardings=places)(given or {})
