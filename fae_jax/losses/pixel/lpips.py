"""LPIPS between decoded images and images, both in [−1, 1], averaged: see `fae_jax.extractors.lpips`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from fae_jax.extractors.lpips import LPIPS, TRUNKS
from fae_jax.losses.pixel import Term
from fae_jax.section import one_of, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class PerceptualSection:
    """LPIPS."""

    trunk: str = option("vgg", "the network it looks through: vgg, alex or squeeze", one_of(*TRUNKS))
    weights: str = option("", "a file of its weights; empty = what `fae weights pull lpips_…` brought", path=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Perceptual(Term):
    """See the module."""

    lpips: LPIPS
    weights: str
    dtype: Any
    Section = PerceptualSection

    @classmethod
    def build(cls, section: PerceptualSection, compute: Any) -> Perceptual:
        """See `fae_jax.losses.pixel`."""
        return cls(lpips=LPIPS(trunk=section.trunk), weights=section.weights, dtype=jnp.dtype(compute.dtype))

    @property
    def networks(self) -> Mapping[str, tuple[Any, str]]:  # type: ignore[override]
        return {self.lpips.network.name: (self.lpips.network, self.weights)}

    def __call__(self, decoded: Array, images: Array, given: Mapping[str, Any], keys: Array) -> Array:
        return jnp.mean(self.lpips.distance(given[self.lpips.network.name], decoded, images, self.dtype))
