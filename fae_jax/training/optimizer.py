"""AdamW with warm-up, schedule, clipping, and parameter averages kept inside the optimizer.

    ema_k ← d · ema_k + (1 − d) · p_k         for each decay d, after every step      (1)

An average is part of the optimizer state, so it is sharded, saved and restored with it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict


class AverageState(NamedTuple):
    """Averages by decay, as text ("0.9999"): trees like the parameters."""

    averages: dict[str, Any]


def average_parameters(decays: tuple[float, ...]) -> optax.GradientTransformation:
    """Equation (1) as the last transformation of a chain; starts from the initial parameters."""

    def init(params: Any) -> AverageState:
        return AverageState({str(decay): jax.tree.map(jnp.copy, params) for decay in decays})

    def update(updates: Any, state: AverageState, params: Any = None) -> tuple[Any, AverageState]:
        new = optax.apply_updates(params, updates)
        averages = {
            str(decay): optax.incremental_update(new, state.averages[str(decay)], 1 - decay) for decay in decays
        }
        return updates, AverageState(averages)

    return optax.GradientTransformation(init, update)


def learning_rate(section: ConfigDict) -> optax.Schedule:
    """Linear warm-up to `learning_rate`, then constant, or a cosine down to `last_learning_rate`."""
    if section.schedule == "cosine":
        # The cosine needs one step to fall; a run of no more steps than its warm-up only warms up.
        return optax.warmup_cosine_decay_schedule(
            0.0 if section.warmup else section.learning_rate,
            section.learning_rate,
            section.warmup,
            max(section.steps, section.warmup + 1),
            section.last_learning_rate,
        )
    if not section.warmup:
        return optax.constant_schedule(section.learning_rate)
    return optax.linear_schedule(0.0, section.learning_rate, section.warmup)


def _matrices(params: Any) -> Any:
    """Weight decay falls on kernels; not on biases, norms or embedding tables."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def make_optimizer(section: ConfigDict) -> optax.GradientTransformation:
    """The optimizer that a training section of the configuration describes."""
    chain = [optax.clip_by_global_norm(section.clip)] if section.clip else []
    chain.append(
        optax.adamw(
            learning_rate(section),
            b1=section.betas[0],
            b2=section.betas[1],
            weight_decay=section.weight_decay,
            mask=_matrices,
        )
    )
    return optax.chain(*chain, average_parameters(tuple(section.ema)))


def best_params(state: Any, player: str) -> Any:
    """What later stages will use of a `TrainState`: a player's EMA of the largest decay, or its parameters where none
    is kept."""
    own = state.players[player]
    kept = own.optimizer[-1].averages
    return kept[max(kept, key=float)] if kept else own.params
