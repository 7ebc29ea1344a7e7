"""Logits of ConvNeXt-S: mean (logits(ŷ) − logits(y))² over classes and images (TA-TiTok, STARFlow's autoencoder).

Images are resized to 224 as those do it; see `fae_jax.extractors.convnext`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from fae_jax.extractors.convnext import CONVNEXT_S, FirstConvNeXt
from fae_jax.losses.pixel import Term
from fae_jax.section import option


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogitsSection:
    """Logits of ConvNeXt-S."""

    weights: str = option("", "a file of its weights; empty = what `fae weights pull convnext_s` brought", path=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Logits(Term):
    """See the module."""

    weights: str
    dtype: Any
    kind: FirstConvNeXt = CONVNEXT_S
    Section = LogitsSection

    @classmethod
    def build(cls, section: LogitsSection, compute: Any) -> Logits:
        """See `fae_jax.losses.pixel`."""
        return cls(weights=section.weights, dtype=jnp.dtype(compute.dtype))

    @property
    def networks(self) -> Mapping[str, tuple[Any, str]]:  # type: ignore[override]
        return {self.kind.name: (self.kind.network, self.weights)}

    def __call__(self, decoded: Array, images: Array, given: Mapping[str, Any], keys: Array) -> Array:
        # one after the other: as one batch, what the backward pass needs would be kept of the images too
        params = given[self.kind.name]
        ours, theirs = (self.kind.read(params, each, self.dtype)["logits"] for each in (decoded, images))
        return jnp.mean((ours - theirs) ** 2)
