"""LPIPS of reconstructions and their originals (`fae_jax.extractors.lpips`), of each image and on average."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from fae_jax.data.pixels import to_pixels
from fae_jax.evaluation.metrics.fidelity import Fidelity
from fae_jax.extractors.lpips import LPIPS, TRUNKS
from fae_jax.section import one_of, option
from fae_jax.weights import hash_tree

BLOCK = 32  # images looked at together; the last ones are filled up, so that one program serves all


@dataclasses.dataclass(frozen=True, kw_only=True)
class LpipsSection:
    """LPIPS."""

    trunk: str = option("alex", f"one of {', '.join(TRUNKS)}; alex: its authors' choice", one_of(*TRUNKS))
    weights: str = option("", "a file of its weights; empty = what `fae weights pull lpips_…` brought", path=True)


class Lpips(Fidelity):
    """Its scores: `lpips`, the mean over images; `lpips_highest`; `lpips_network` {name, weights: their hash}.

    Raises:
      FileNotFoundError: the weights are not there; says which command brings them.
    """

    higher = ()
    Section = LpipsSection

    def __init__(self, trunk: str = "alex", weights: str = ""):
        self._lpips, self._weights = LPIPS(trunk=trunk), weights
        self._lpips.network.check(weights)
        self.distances = {"lpips": self._distance}
        super().__init__()

    @classmethod
    def build(cls, section: LpipsSection | None, classes: Sequence[str]) -> Lpips:
        chosen = section or LpipsSection()
        return cls(chosen.trunk, chosen.weights)

    @functools.cached_property
    def _params(self) -> dict[str, Any]:
        return self._lpips.network.load(self._weights)

    @functools.cached_property
    def _run(self) -> Any:
        return jax.jit(lambda params, a, b: self._lpips.distance(params, to_pixels(a), to_pixels(b)))

    def _distance(
        self, originals: UInt8[np.ndarray, "n y x 3"], images: UInt8[np.ndarray, "n y x 3"]
    ) -> Float[np.ndarray, " n"]:
        made = []
        for start in range(0, len(images), BLOCK):
            pair = [each[start : start + BLOCK] for each in (originals, images)]
            missing = BLOCK - len(pair[0])
            filled = [jnp.asarray(np.concatenate([each, each[-1:].repeat(missing, 0)])) for each in pair]
            made.append(np.asarray(self._run(self._params, *filled), np.float64)[: len(pair[0])])
        return np.concatenate(made)

    def result(self, real: Mapping[str, Fidelity]) -> dict[str, Any]:
        about = {"name": self._lpips.network.name, "weights": hash_tree(self._params)}
        return {**super().result(real), "lpips_network": about}
