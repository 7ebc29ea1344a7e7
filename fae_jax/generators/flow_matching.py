"""Flow matching: what configures it."""

from __future__ import annotations

import dataclasses

from fae_jax.generators.networks import NETWORKS
from fae_jax.section import above, option, plug


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlowMatchingSection:
    """Flow matching on the straight path."""

    train_shift: float = option(0.4, "timestep shift in training; 1 = none, smaller = noisier", above(0))
    network: str = plug("dit", "the network that predicts the velocity: dit", "networks", NETWORKS)
