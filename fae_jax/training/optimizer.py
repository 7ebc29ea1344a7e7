"""AdamW or Muon with warm-up, schedule, clipping, and parameter averages kept inside the optimizer.

Muon (Keller Jordan, 2024; as scaled in arXiv 2502.16982) steps each matrix of a linear by its momentum,
orthogonalised, times 0.2 √(larger side): the root mean square of AdamW's steps, so that one learning rate does for
both. All other parameters are AdamW's.

    ema_k ← d · ema_k + (1 − d) · p_k         for each decay d, after every step      (1)

An average is part of the optimizer state, so it is sharded, saved and restored with it.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from optax.contrib import MuonDimensionNumbers, muon

from fae_jax.section import at_least, decays, numbers, one_of, option, share


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingSection:
    """What every training stage has."""

    steps: int = option(0, "optimizer steps", at_least(1))
    batch: int = option(0, "examples a step, over all devices and hosts", at_least(1))
    microbatches: int = option(
        1, "parts a batch is computed in, one after the other, to save memory", at_least(1), operational=True
    )
    optimizer: str = option("adamw", "adamw, or muon for matrices and adamw for the rest", one_of("adamw", "muon"))
    learning_rate: float = option(1e-4, "the optimizer's learning rate at its highest", at_least(0))
    betas: tuple[Any, ...] = option(
        (0.9, 0.999), "AdamW", numbers(2, "two numbers in [0, 1)", lambda *betas: all(0 <= b < 1 for b in betas))
    )
    momentum: float = option(0.95, "Muon", share)
    weight_decay: float = option(0.0, "on matrices only", at_least(0))
    schedule: str = option(
        "cosine", "the learning rate after the warm-up: constant or cosine", one_of("constant", "cosine")
    )
    warmup: int = option(1000, "steps of linear warm-up from 0", at_least(0))
    last_learning_rate: float = option(0.0, "where the cosine ends", at_least(0))
    clip: float = option(1.0, "largest global gradient norm; 0 = do not clip", at_least(0))
    ema: tuple[Any, ...] = option((), "decays of parameter averages; what comes after uses the slowest", decays)
    max_skipped: int = option(
        100, "steps with a non-finite loss or gradient that may be skipped in a row", at_least(0)
    )

    def check(self) -> None:
        if self.batch % self.microbatches:
            raise ValueError(f"microbatches={self.microbatches} must divide batch={self.batch}")


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


def learning_rate(section: TrainingSection) -> optax.Schedule:
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


def make_optimizer(section: TrainingSection) -> optax.GradientTransformation:
    """The optimizer that a training section of the configuration describes."""
    chain = [optax.clip_by_global_norm(section.clip)] if section.clip else []
    rate, (b1, b2), decay = learning_rate(section), section.betas, section.weight_decay
    if section.optimizer == "muon":
        sides = MuonDimensionNumbers(reduction_axis=-2, output_axis=-1)  # axes (…, d, p); those before count blocks
        of_matrices = muon(
            rate,
            beta=section.momentum,
            weight_decay=decay,
            muon_weight_dimension_numbers=lambda params: jax.tree.map(lambda _: sides, params),
            consistent_rms=0.2,
        )
        kinds = {True: of_matrices, False: optax.adamw(rate, b1=b1, b2=b2, weight_decay=0.0)}
        chain.append(optax.partition(kinds, _matrices))
    else:
        chain.append(optax.adamw(rate, b1=b1, b2=b2, weight_decay=decay, mask=_matrices))
    return optax.chain(*chain, average_parameters(tuple(section.ema)))


def best_params(state: Any, player: str) -> Any:
    """What later stages will use of a `TrainState`: a player's EMA of the largest decay, or its parameters where none
    is kept."""
    own = state.players[player]
    kept = own.optimizer[-1].averages
    return kept[max(kept, key=float)] if kept else own.params
