"""What a stage hands to the trainer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from fae_jax.training.optimizer import TrainingSection
from fae_jax.training.state import Player, TrainState

Score = Callable[[TrainState], dict[str, float]]  # state → values of its row of metrics
Preview = Callable[[TrainState], tuple[np.ndarray, str]]  # state → uint8 image (y, x, 3) and its caption


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """One stage, ready to be trained.

    Attributes:
      name: of the stage, and of its folder.
      players: see `Player`.
      frozen: parameters that are read and not trained, on devices.
      batches: step → this host's shares of batches from that step on.
      seed: of initialisation and steps.
      section: the stage's training section of the configuration.
      field: that section's name.
      start: gives parameters of players that do not start from scratch, by name; asked where there is no checkpoint.
      preview: what is drawn of a state, or None.
      score, score_every: what tells more of a state, and every how many steps and at the end; or None.
      flops: of one step over all devices, or None where nobody has counted them.
      peak: FLOP/s of all devices together, or None where it is not known.
    """

    name: str
    players: Mapping[str, Player]
    frozen: Mapping[str, Any]
    batches: Callable[[int], Iterator[dict[str, np.ndarray]]]
    seed: int
    section: TrainingSection
    field: str = ""
    start: Callable[[], Mapping[str, Any]] = dict
    preview: Preview | None = None
    score: Score | None = None
    score_every: int = 0
    flops: float | None = None
    peak: float | None = None
