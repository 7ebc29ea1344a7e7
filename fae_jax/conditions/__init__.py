"""What a generator is told beside the noise: nothing, a class, or a text. The contract, and the table of kinds.

A kind is one file here, or an entry point in the group `fae_jax.conditions` of another package.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Array, Key

from fae_jax.kinds import find
from fae_jax.section import option, plug, share

CONDITIONS = {
    "none": "fae_jax.conditions.nothing:Nothing",
    "class": "fae_jax.conditions.label:ClassLabel",
    "text": "fae_jax.conditions.text:Text",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConditionSection:
    """What a generator is told."""

    kind: str = plug("class", "what a generator is told: none, class or text", "conditions", CONDITIONS)
    dropout: float = option(0.1, "share of examples trained without it: of captions left empty", share)


@runtime_checkable
class Condition(Protocol):
    """A condition is an array, or a tree of arrays, with one entry for each example.

    Attributes:
      classes: number of classes that a network embeds; 0 where there are none.
      reads: fields of a batch that it is made of, {name: (shape of one example, dtype)}.

    One that a frozen network has to read first (`text`) also has `encode(params, condition)`, from what `of` and
    `request` give to what a generator is told; `none` and `drop` are then of the latter.
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

    def request(self, labels: Any) -> Any:
        """What a user asks for, labels or prompts, as NumPy arrays with a leading axis.

        Raises:
          ValueError: it cannot be asked of this condition; says what can.
        """
        ...


def reads_text(config: Any) -> bool:
    """Whether the configuration's condition is a text, which a tower has to read."""
    return hasattr(find("conditions", CONDITIONS, config.condition.kind), "encode")


def told(condition: Any, params: Mapping[str, Any], asked: Any) -> Any:
    """What a generator is told of what `of` or `request` gave; `params` holds the frozen network's under "text"."""
    return condition.encode(params["text"], asked) if hasattr(condition, "encode") else asked


def make_condition(config: Any) -> Any:
    """The `Condition` that the configuration's section `condition` describes.

    Raises:
      ValueError: its kind is unknown.
    """
    section = config.condition
    kind = find("conditions", CONDITIONS, section.kind)
    if hasattr(kind, "build"):
        return kind.build(getattr(section, section.kind), dropout=section.dropout, config=config)
    return kind(dropout=section.dropout, classes=config.data.classes)
