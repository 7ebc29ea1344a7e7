"""What a generator is told: nothing, or a class."""

from __future__ import annotations

import dataclasses

from fae_jax.section import option, plug, share

CONDITIONS = {"none": "fae_jax.conditions", "class": "fae_jax.conditions"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConditionSection:
    """What a generator is told."""

    kind: str = plug("class", "what a generator is told: none or class", "conditions", CONDITIONS)
    dropout: float = option(0.1, "share of examples trained without it", share)
