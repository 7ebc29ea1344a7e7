"""One training step: a pure function of (state, frozen, batch), and its compiled, sharded, donating wrapper.

For every player p with parameters θ, and the examples' own keys k_i = fold(fold(seed, step), i):

    g = 1/m Σ_j ∇θ loss(θ, microbatch_j, keys_j)                               (1)
    θ ← θ + optimizer(g)           if every loss and gradient is finite, else unchanged
    memory ← remember(memory, 1/m Σ_j measured_j)                              likewise

All players step from the same state. What a loss hands on (the images of a decoder) is computed once, and the losses
of the players after it read it in their batch. The keys belong to places in the global batch, so neither microbatches
nor devices change what an example sees.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array

from fae_jax.nn.compute import from_step
from fae_jax.nn.dense import weight_gradients
from fae_jax.parallel.mesh import batch_sharding
from fae_jax.parallel.rules import constrained, shardings
from fae_jax.parallel.xla_flags import training_options
from fae_jax.training.state import Player, PlayerState, RememberingState, Report, TrainState, state_shardings

Step = Callable[[TrainState, Any, Any], tuple[TrainState, dict[str, Array]]]


def example_keys(seed: int, step: Array, batch: int) -> Array:
    """A key per example of the global batch at `step`: (batch,) typed keys."""
    base = jax.random.fold_in(jax.random.key(seed), step)
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(base, jnp.arange(batch))


def _memory(own: PlayerState) -> Any:
    return own.memory if isinstance(own, RememberingState) else {}


def _gradients(
    players: Mapping[str, Player],
    state: TrainState,
    frozen: Mapping[str, Any],
    batch: Mapping[str, Any],
    keys: Array,
    parts: int,
    place: Callable[[Any], Any],
) -> dict[str, Any]:
    """Equation (1): name → (mean gradient, loss, metrics, measured) over `parts` microbatches."""
    seen = {**frozen, "memory": {name: _memory(own) for name, own in state.players.items()}}

    def differentiate(batch: Mapping[str, Any], keys: Array) -> dict[str, Any]:
        made = {}
        for name, player in players.items():
            others = {other: value.params for other, value in state.players.items() if other != name}

            def run(
                params: Any, batch: Any, player: Player = player, others: Mapping[str, Any] = others
            ) -> tuple[Any, Array, Report]:
                (loss, report), gradient = jax.value_and_grad(player.loss, has_aux=True)(
                    params, {**seen, **others}, batch, keys, state.step
                )
                return place(gradient), loss, report if isinstance(report, Report) else Report(report)

            params = state.players[name].params
            begun = from_step(state.step, player.start, run, params, batch) if player.start else run(params, batch)
            gradient, loss, report = begun
            batch = {**batch, **report.handed}
            made[name] = (gradient, loss, report.metrics, report.measured)
        return made

    if parts == 1:
        return differentiate(batch, keys)
    # Every device keeps its own examples: microbatch j takes examples j, j + parts, j + 2·parts, …
    split = jax.tree.map(lambda x: jnp.swapaxes(x.reshape(-1, parts, *x.shape[1:]), 0, 1), (batch, keys))

    def add(total: Any, part: Any) -> tuple[Any, None]:
        return jax.tree.map(lambda a, b: a + b / parts, total, differentiate(*part)), None

    first = jax.tree.map(lambda x: x[0], split)
    shapes = jax.eval_shape(lambda part: differentiate(*part), first)
    total, _ = jax.lax.scan(add, jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes), split)
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
    `gradient_norm`, `skipped`; those of all players but the first are led by the player's name."""
    size = jax.tree.leaves(batch)[0].shape[0]
    keys = example_keys(seed, state.step, size)
    made = _gradients(players, state, frozen, batch, keys, parts, place)
    stepped, metrics, finite = {}, {}, jnp.array(True)
    for name, player in players.items():
        own, (gradient, loss, extra, measured) = state.players[name], made[name]
        norm = optax.tree.norm(gradient)
        finite = finite & jnp.isfinite(loss) & jnp.isfinite(norm)
        updates, optimizer = player.optimizer.update(gradient, own.optimizer, own.params)
        new = {"params": optax.apply_updates(own.params, updates), "optimizer": optimizer}
        if isinstance(own, RememberingState):
            memory = player.remember(own.memory, measured, state.step)
            new["memory"] = memory
            for leaf in jax.tree.leaves(memory):  # what is remembered wrongly would spoil every step to come
                finite = finite & jnp.isfinite(leaf).all()
        stepped[name] = dataclasses.replace(own, **new)
        if player.start:
            begun = state.step >= player.start
            stepped[name] = jax.tree.map(lambda new, old, begun=begun: jnp.where(begun, new, old), stepped[name], own)
        prefix = "" if name == next(iter(players)) else f"{name}/"
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
        constrained(step, mesh),
        donate_argnums=0,
        in_shardings=(places, None, None),
        out_shardings=(places, None),
        compiler_options=training_options() if mesh.devices.flat[0].platform == "cpu" else None,
    )
