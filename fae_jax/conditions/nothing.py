"""No condition: every example is asked for alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key


@dataclasses.dataclass(frozen=True, kw_only=True)
class Nothing:
    """See `fae_jax.conditions.Condition`. Networks that embed a class are given the one there is, 0."""

    dropout: float = 0.0
    classes: int = 0
    reads: ClassVar[Mapping[str, Any]] = {"index": ((), jnp.int32)}

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", 0)  # whatever the images have

    def of(self, batch: Mapping[str, Array]) -> Int[Array, " b"]:
        return jnp.zeros(batch["index"].shape, jnp.int32)

    def none(self, count: int) -> Int[Array, " b"]:
        return jnp.zeros((count,), jnp.int32)

    def drop(self, keys: Key[Array, " b"], condition: Int[Array, " b"]) -> Int[Array, " b"]:
        return condition

    def request(self, labels: Sequence[int] | Sequence[str] | np.ndarray | None) -> Int[np.ndarray, " b"]:
        if labels is None:
            raise ValueError("say how many images to draw")
        given = np.asarray(labels)
        if given.dtype.kind in "US":
            raise ValueError("this model reads no prompts (condition.kind=none): say how many images to draw")
        if np.any(given):
            raise ValueError("this model knows no classes (condition.kind=none): leave labels at 0")
        return np.zeros(len(labels), np.int32)
