"""Encoders of the registry as extractors: every one by its name, and those of FD-loss as it reads them.

    images → resize to S×S → [−1, 1] → filled up to whole patches → the encoder's preprocessing → cls, pooled, mean

`mean` is the mean of the patch tokens; `cls` and `pooled` are there where the encoder has them. By its own name a
published encoder reads images at the size of its processor, resized as that does it, with no crop: so `dinov2_l14`
is dgm-eval's DINOv2 (224, PIL's bicubic) and `clip_l14_336` is the network of CMMD (336, PIL's bicubic; `pooled`).
FD-loss (`frechet_distance/repr_models.py`, of which FDr6 is made) resizes in float without rounding to 8 bits, and
fills 256 up to 266 pixels for patches of 14, with what is zero after the encoder's preprocessing.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from fae_jax.encoders import Encoder, create
from fae_jax.encoders.published import ENCODERS
from fae_jax.extractors import Extractor, check_images, holds_pixels
from fae_jax.nn.resample import resize, resize_rounded

ELSEWHERE = 256  # pixels at which encoders that are not published ones are read


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
    """How an encoder is given images; itself a kind of extractor.

    Attributes:
      encoder: its name in the registry.
      side: S, in pixels.
      filled: side of the encoder's input; the right and the bottom are filled up.
      resample: `bicubic` or another of `fae_jax.nn.resample.KINDS`.
      rounded: whether each pass of the resize rounds to 8 bits, as PIL does.
      options: for `fae_jax.encoders.create`.
      words: behind the variant, in brackets.
    """

    encoder: str
    side: int
    filled: int
    resample: str = "bicubic"
    rounded: bool = True
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    words: str = ""

    @property
    def source(self) -> str:
        """The repository of its weights on the hub."""
        return ENCODERS[self.encoder].repository

    def __call__(self, name: str, weights: str) -> Extractor:
        """See `fae_jax.extractors.load_extractor`."""
        encoder = create(self.encoder, weights=weights or None, image_size=self.filled, **self.options)

        def apply(params: Any, images: Any) -> dict[str, Array]:
            check_images(name, images)
            output = encoder.apply(params, encoder.preprocess(self._pixels(encoder, images)))
            taps = {"cls": output.cls, "pooled": output.pooled, "mean": output.patches.mean(1)}
            return {tap: value.astype(jnp.float32) for tap, value in taps.items() if value is not None}

        return Extractor(
            name=name,
            variant=self._variant(encoder),
            weights_hash=encoder.weights_hash,
            params=encoder.params,
            apply=apply,
        )

    def _pixels(self, encoder: Encoder, images: Array) -> Array:
        """uint8 → [−1, 1] at the encoder's input size."""
        way = resize_rounded if self.rounded else resize
        pixels = way(images, (self.side, self.side), self.resample) / 127.5 - 1
        if self.filled == self.side:
            return pixels
        margin = self.filled - self.side
        centred = pixels - (colour := 2 * jnp.asarray(encoder.settings["mean"]) - 1)
        return jnp.pad(centred, ((0, 0), (0, margin), (0, margin), (0, 0))) + colour

    def _variant(self, encoder: Encoder) -> str:
        resized = f"{self.resample} resize" + (" in 8 bits as PIL's" if self.rounded else ", antialiased, in float")
        words = [f"{self.encoder} at {self.side}×{self.side}", resized]
        if self.filled != self.side:
            words.append(f"filled up to {self.filled}×{self.filled}")
        positions = encoder.settings.get("interpolation", "none")
        words += [f"positions {positions}"] if positions != "none" else []
        return ", ".join(words) + (f" ({self.words})" if self.words else "")


def _fd_loss(encoder: str, side: int, filled: int) -> Reading:
    options = {"input_size": filled, "interpolation": "bicubic_antialias"}
    return Reading(encoder=encoder, side=side, filled=filled, rounded=False, options=options, words="FD-loss")


def own(encoder: Encoder, side: int) -> Extractor:
    """An experiment's encoder, which looks at its images, `side` pixels wide; its tap `mean` is x averaged over
    patches."""

    def apply(params: Any, images: Any) -> dict[str, Array]:
        if not holds_pixels(images) or images.shape[1:] != (side, side, 3):
            raise ValueError(f"the experiment's encoder looks at images of {side}×{side}, got {images.shape}")
        output = encoder.apply(params, encoder.preprocess(images.astype(jnp.float32) / 127.5 - 1))
        return {"mean": output.patches.astype(jnp.float32).mean(1)}

    settings = ", ".join(f"{key}={value}" for key, value in encoder.settings.items())
    return Extractor(
        name="encoder",
        variant=", ".join(filter(None, (encoder.name, f"images of {side}×{side}", settings))),
        weights_hash=encoder.weights_hash,
        params=encoder.params,
        apply=apply,
    )


FD_LOSS_DINOV2 = _fd_loss("dinov2_l14", 256, 266)
FD_LOSS_MAE = _fd_loss("mae_l16", 224, 224)
FD_LOSS_SIGLIP2 = _fd_loss("siglip2_so400m16_256", 224, 224)
FD_LOSS_CLIP = _fd_loss("clip_l14", 256, 266)


def of_encoder(name: str, weights: str) -> Extractor:
    """The encoder `name` of the registry, by itself."""
    published = ENCODERS.get(name)
    if published is None or published.preprocessing is None:
        return Reading(encoder=name, side=ELSEWHERE, filled=ELSEWHERE)(name, weights)
    way = published.preprocessing
    side = way.crop or way.square or ELSEWHERE
    reading = Reading(
        encoder=name,
        side=side,
        filled=side,
        resample=way.resample,
        rounded=way.rounded,
        options={"input_size": side},
    )
    return reading(name, weights)
