"""The text tower beside the encoder: images and texts as vectors of one space, in which cosines compare them.

image → encoder (x) → its own pooling → p          x̂ → the same pooling → p̂
text    → tokens → text tower → t                    similarity = p·t / (‖p‖ ‖t‖)
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fae_jax.encoders import registry
from fae_jax.evaluation.vectors import own_pooling, reads_patches
from fae_jax.evaluation.views import View
from fae_jax.evaluation.voting import unit
from fae_jax.model import FAE
from fae_jax.section import option


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextSection:
    """The text tower beside the encoder."""

    tower: str = option("", "text tower that images are compared with; empty = the encoder's own")
    weights: str = option("", "its file, folder or hub name; empty = the encoder's", path=True)


TEXTS = 256  # texts read at once
ALONE = "the encoder pools its class token alone, which the latent does not carry"


class TextSide:
    """Vectors of images and texts.

    Attributes:
      tower: the text tower; read when first asked for.
      no_reconstructed: why x̂ has no vector, "" where it has; known after the first images.

    Raises:
      ValueError: the encoder pools no vector, or there is no text tower of that name.
    """

    def __init__(self, fae: FAE):
        self.fae, self.no_reconstructed = fae, ""
        self._seen = False
        self.name = fae.config.evaluation.text.tower or fae.encoder.name
        pooling = own_pooling(fae.encoder)
        if pooling is None:
            raise ValueError(
                f"the encoder {fae.encoder.name!r} pools no vector that texts could be compared with; "
                "use one of SigLIP, SigLIP2 or CLIP"
            )
        self._pooling = pooling
        if self.name not in registry.text_names():
            raise ValueError(
                f"there is no text tower {self.name!r}; the encoder's own are those of SigLIP, SigLIP2 and CLIP, or "
                "name one in evaluation.text.tower"
            )

    @functools.cached_property
    def tower(self) -> registry.TextEncoder:
        """Raises ValueError, FileNotFoundError, OSError: its weights or its tokenizer are not there or do not fit."""
        config = self.fae.config
        weights = config.evaluation.text.weights or ("" if config.evaluation.text.tower else config.encoder.weights)
        tower = registry.create_text(self.name, weights=weights or None, dtype=config.compute.dtype)
        if tower.scale is None:
            raise ValueError(f"the text tower {self.name!r} compares no images; use one of SigLIP or CLIP")
        return tower

    @functools.cached_property
    def _apply(self):
        return jax.jit(lambda params, tokens, mask: self.tower.apply(params, tokens, mask).pooled)

    def texts(self, captions: Sequence[str]) -> Float[np.ndarray, "t p"]:
        """Unit vectors of texts; those longer than the tower's limit are cut to it.

        Raises:
          ValueError: there is none.
        """
        if not captions:
            raise ValueError("there is no text to compare images with")
        vectors, size = [], min(TEXTS, len(captions))
        for start in range(0, len(captions), size):
            part = list(captions[start : start + size])
            tokens, mask = self.tower.tokenize(part + [""] * (size - len(part)))
            pooled = self._apply(self.tower.params, jnp.asarray(tokens), jnp.asarray(mask))
            vectors.append(np.asarray(pooled, np.float32)[: len(part)])
        return unit(np.concatenate(vectors))

    def images(self, view: View) -> dict[str, Float[np.ndarray, "k p"]]:
        """Unit vectors of a batch from x, and from x̂ where the pooling reads patches.

        Raises:
          ValueError: images and texts have vectors of another width.
        """
        if not self._seen:
            self._seen, self.no_reconstructed = True, "" if reads_patches(self._pooling, view) else ALONE
        spaces: dict[str, Array] = {"x": view.features}
        if not self.no_reconstructed:
            spaces["reconstructed"] = view.reconstructed
        return {name: unit(view.kept(self._pooling(patches, view.outputs.cls))) for name, patches in spaces.items()}

    def check_width(self, images: Float[np.ndarray, "k p"], texts: Float[np.ndarray, "t q"]) -> None:
        """Refuses vectors that have no cosine.

        Raises:
          ValueError: their widths differ.
        """
        if images.shape[1] != texts.shape[1]:
            raise ValueError(
                f"the encoder {self.fae.encoder.name!r} pools {images.shape[1]} channels and the text tower "
                f"{self.name!r} {texts.shape[1]}: they were not trained together"
            )

    def as_result(self) -> dict[str, object]:
        """What a result says of both."""
        encoder, tower = self.fae.encoder, self.tower
        both = {
            "encoder": {"name": encoder.name, "weights": encoder.weights_hash},
            "text_tower": {"name": tower.name, "weights": tower.weights_hash, "tokens": tower.length},
        }
        return {**both, "no_reconstructed": self.no_reconstructed} if self.no_reconstructed else both
