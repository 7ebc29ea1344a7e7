"""A class: its number; the number of classes itself means "no class"."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassLabel:
    """See `fae_jax.conditions.Condition`.

    Attributes:
      classes: how many there are.
      dropout: share of examples that are trained without their class.
    """

    classes: int
    dropout: float = 0.0
    reads: ClassVar[Mapping[str, Any]] = {"label": ((), jnp.int32)}

    def of(self, batch: Mapping[str, Array]) -> Int[Array, " b"]:
        return batch["label"]

    def none(self, count: int) -> Int[Array, " b"]:
        return jnp.full((count,), self.classes, jnp.int32)

    def drop(self, keys: Key[Array, " b"], condition: Int[Array, " b"]) -> Int[Array, " b"]:
        dropped = jax.vmap(lambda key: jax.random.bernoulli(key, self.dropout))(keys)
        return jnp.where(dropped, self.classes, condition)

    def request(self, labels: Sequence[int] | Sequence[str] | np.ndarray | None) -> Int[np.ndarray, " b"]:
        if labels is None:
            raise ValueError(f"this model draws by class: give labels, 0 … {self.classes - 1}")
        given = np.asarray(labels)
        if given.dtype.kind in "US":
            raise ValueError(f"this model draws by class and reads no prompts: give labels, 0 … {self.classes - 1}")
        if given.ndim != 1 or not len(given):
            raise ValueError("labels must be a list of at least one class")
        if given.dtype.kind not in "iu":
            raise ValueError(f"labels must be whole numbers, got {given.dtype}")
        wrong = given[(given < 0) | (given > self.classes)]
        if len(wrong):
            raise ValueError(f"label {wrong[0]} is not in 0 … {self.classes}")
        return given.astype(np.int32)
