"""CLIP score: how well images fit the texts that they were drawn from (Hessel et al. 2021, arXiv 2104.08718).

With v an image's vector and t its text's, by the two towers of one CLIP or SigLIP,

    CLIP score = mean over images of 100 · max(0, v · t / (‖v‖ ‖t‖))                               (1)

the factor of torchmetrics and of most papers; Hessel's own is 2.5. Texts beyond the tower's length are cut.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fae_jax.encoders import TextEncoder, create_text
from fae_jax.evaluation.metrics import Batch
from fae_jax.evaluation.voting import unit
from fae_jax.section import option

SCALE = 100.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipScoreSection:
    """The two towers."""

    extractor: str = option("clip_l14:pooled", "EXTRACTOR:TAP that gives images' vectors")
    tower: str = option("clip_l14", "text tower that gives texts' vectors: of the same CLIP or SigLIP")


@functools.cache
def _tower(name: str) -> tuple[TextEncoder, Any]:
    tower = create_text(name, weights=None)
    return tower, jax.jit(lambda params, tokens, mask: tower.apply(params, tokens, mask).pooled)


class ClipScore:
    """See the module. Of each image it keeps its cosine.

    Its score: `clip_score` {value, deviation (over images), samples, extractor, tower {name, weights, tokens}}.
    """

    compares = "nothing"
    higher = ("clip_score",)
    Section = ClipScoreSection

    def __init__(self, section: ClipScoreSection, texts: Sequence[str]):
        self.section, self.texts = section, texts
        self._cosines: list[np.ndarray] = []

    @classmethod
    def build(cls, section: ClipScoreSection | None, classes: Sequence[str]) -> ClipScore:
        return cls(section or ClipScoreSection(), classes)

    def update(self, batch: Batch) -> None:
        """Raises ValueError: images and texts have vectors of another width, or the tower pools none."""
        tower, pooled = _tower(self.section.tower)
        tokens, mask = tower.tokenize([self.texts[label] for label in batch.labels])
        vectors = pooled(tower.params, jnp.asarray(tokens), jnp.asarray(mask))
        images = batch.tap(self.section.extractor)
        width = 0 if vectors is None else vectors.shape[1]
        if width != images.shape[1]:
            raise ValueError(
                f"{self.section.extractor} gives {images.shape[1]} channels of an image and the text tower "
                f"{self.section.tower} {width} of a text: name the two towers of one CLIP or SigLIP"
            )
        self._cosines.append(np.sum(unit(np.asarray(images)) * unit(np.asarray(vectors)), axis=1))

    def merge(self, other: ClipScore) -> None:
        self._cosines += other._cosines

    def state(self) -> dict[str, np.ndarray]:
        return {"cosines": np.concatenate([*self._cosines, []])}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        self._cosines = [state["cosines"]]

    def result(self, real: Mapping[str, Any]) -> dict[str, Any]:
        scores = SCALE * np.maximum(self.state()["cosines"], 0)
        if not len(scores):
            raise ValueError("the CLIP score needs images, got none")
        tower, _ = _tower(self.section.tower)
        about = {"name": tower.name, "weights": tower.weights_hash, "tokens": tower.length}
        how = {"samples": len(scores), "extractor": self.section.extractor, "tower": about}
        return {"clip_score": {"value": float(scores.mean()), "deviation": float(scores.std()), **how}}
