"""What a generator is told beside the noise: nothing, or a class. The contract, and the table of kinds.

A kind is one file here, or an entry point in the group `fae_jax.conditions` of another package.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Key

from fae_jax.kinds import find
from fae_jax.section import option, plug, share

CONDITIONS = {
    "none": "fae_jax.conditions.nothing:Nothing",
    "class": "fae_jax.conditions.label:ClassLabel",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConditionSection:
    """What a generator is told."""

    kind: str = plug("class", "what a generator is told: none or class", "conditions", CONDITIONS)
    dropout: float = option(0.1, "share of examples trained without it", share)


@runtime_checkable
class Condition(Protocol):
    """A condition is an array, or a tree of arrays, with one entry for each example.

    Attributes:
      classes: number of classes that a network embeds; 0 where there are none.
      reads: fields of a batch that it is made of, {name: (shape of one example, dtype)}.
    """

    classes: int
    reads: Mapping[str, tuple[tuple[int, ...], Any]]

    def of(self, batch: Mapping[str, Array]) -> Any:
        """The condition of a batch of stored latents; runs on device."""
        ...

    def none(self, count: int) -> Any:
        """`count` times "nothing": what guidance compares with."""
        ...

    def drop(self, keys: Key[Array, " b"], condition: Any) -> Any:
        """The condition with a share of its examples, drawn by their keys, replaced by "nothing"."""
        ...

    def request(self, labels: Sequence[int] | np.ndarray | None) -> Any:
        """What a user asks for, as NumPy arrays with a leading axis.

        Raises:
          ValueError: it cannot be asked of this condition; says what can.
        """
        ...


def make_condition(config: Any) -> Condition:
    """The condition that the configuration's section `condition` describes.

    Raises:
      ValueError: its kind is unknown.
    """
    section = config.condition
    return find("conditions", CONDITIONS, section.kind)(dropout=section.dropout, classes=config.data.classes)
