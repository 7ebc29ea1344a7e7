"""One training step: a pure function of (state, frozen, batch), and its compiled, sharded, donating wrapper.

For every player p with parameters θ, and the examples' own keys k_i = fold(fold(seed, step), i):

    g = 1/m Σ_j ∇θ loss(θ, microbatch_j, keys_j)                               (1)
    θ ← θ + optimizer(g)           if every loss and gradient is finite, else unchanged

All players step from the same state. The keys belong to places in the global batch, so neither microbatches nor
devices change what an example sees.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array

from fae_jax.nn.dense import weight_gradients
from fae_jax.parallel.mesh import batch_sharding
from fae_jax.parallel.rules import constrained, shardings
from fae_jax.training.state import Player, PlayerState, TrainState, state_shardings

Step = Callable[[TrainState, Any, Any], tuple[TrainState, dict[str, Array]]]


def example_keys(seed: int, step: Array, batch: int) -> Array:
    """A key per example of the global batch at `step`: (batch,) typed keys."""
    base = jax.random.fold_in(jax.random.key(seed), step)
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(base, jnp.arange(batch))


def _gradient(
    player: Player,
    params: Any,
    frozen: Mapping[str, Any],
    batch: Any,
    keys: Array,
    step: Array,
    parts: int,
    place: Callable[[Any], Any],
) -> tuple[Any, Array, dict[str, Array]]:
    """Equation (1): mean gradient, loss and metrics over `parts` microbatches; `place` says where gradients lie."""

    def differentiate(*args: Any) -> tuple[tuple[Array, dict[str, Array]], Any]:
        value, gradient = jax.value_and_grad(player.loss, has_aux=True)(*args)
        return value, place(gradient)

    if parts == 1:
        (loss, metrics), gradient = differentiate(params, frozen, batch, keys, step)
        return gradient, loss, metrics
    # Every device keeps its own examples: microbatch j takes examples j, j + parts, j + 2·parts, …
    split = jax.tree.map(lambda x: jnp.swapaxes(x.reshape(-1, parts, *x.shape[1:]), 0, 1), (batch, keys))

    def add(total: Any, part: Any) -> tuple[Any, None]:
        (loss, metrics), gradient = differentiate(params, frozen, *part, step)
        return jax.tree.map(lambda a, b: a + b / parts, total, (gradient, loss, metrics)), None

    first = jax.tree.map(lambda x: x[0], split)
    shapes = jax.eval_shape(lambda part: differentiate(params, frozen, *part, step), first)
    (loss_shape, metric_shapes), gradient_shapes = shapes
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), (gradient_shapes, loss_shape, metric_shapes))
    total, _ = jax.lax.scan(add, zeros, split)
    return total


def train_step(
    players: Mapping[str, Player],
    parts: int,
    seed: int,
    state: TrainState,
    frozen: Mapping[str, Any],
    batch: Any,
    place: Callable[[Any], Any] = lambda gradient: gradient,
) -> tuple[TrainState, dict[str, Array]]:
    """The algorithm above; `place` says where gradients lie. Metrics: `loss` and what the losses report,
    `gradient_norm`, `skipped`; with several players each name is led by the player's."""
    size = jax.tree.leaves(batch)[0].shape[0]
    keys = example_keys(seed, state.step, size)
    stepped, metrics, finite = {}, {}, jnp.array(True)
    for name, player in players.items():
        own = state.players[name]
        others = {other: value.params for other, value in state.players.items() if other != name}
        given = {**frozen, **others}
        gradient, loss, extra = _gradient(player, own.params, given, batch, keys, state.step, parts, place)
        norm = optax.tree.norm(gradient)
        finite = finite & jnp.isfinite(loss) & jnp.isfinite(norm)
        updates, optimizer = player.optimizer.update(gradient, own.optimizer, own.params)
        stepped[name] = PlayerState(params=optax.apply_updates(own.params, updates), optimizer=optimizer)
        prefix = f"{name}/" if len(players) > 1 else ""
        metrics.update({prefix + key: value for key, value in {"loss": loss, **extra, "gradient_norm": norm}.items()})
    kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), stepped, state.players)
    missed = 1 - finite.astype(jnp.int32)
    new_state = TrainState(
        step=state.step + 1,
        skipped=state.skipped + missed,
        skipped_in_a_row=(state.skipped_in_a_row + 1) * missed,
        players=kept,
    )
    return new_state, {**metrics, "skipped": new_state.skipped, "skipped_in_a_row": new_state.skipped_in_a_row}


def compile_step(
    players: Mapping[str, Player], parts: int, seed: int, mesh: Mesh, gradients: str = "float32"
) -> Step:
    """`train_step` jitted: the state is donated and stays where the rules put it, batch and tagged activations are
    split over examples, and gradients, their sums over microbatches too, lie like the parameters. `gradients` is the
    dtype in which those of matrices cross the mesh."""
    _, places = state_shardings(players, mesh)

    def place(gradient: Any) -> Any:
        return jax.lax.with_sharding_constraint(gradient, shardings(gradient, mesh))

    def step(state: TrainState, frozen: Any, batch: Any) -> tuple[TrainState, dict[str, Array]]:
        batch = jax.lax.with_sharding_constraint(batch, batch_sharding(mesh))
        with weight_gradients(gradients):
            return train_step(players, parts, seed, state, frozen, batch, place)

    return jax.jit(
        constrained(step, mesh), donate_argnums=0, in_shardings=(places, None, None), out_shardings=(places, None)
    )
