"""Frozen networks that scores look through: the contract, the table of kinds, and every encoder of the registry.

A kind is one line here, or an entry point in the group `fae_jax.extractors` of another package: a function

    build(name: str, weights: str) → Extractor        weights: a file or folder; "" for where they are by default

that may have attributes for `fae weights`: `source`, a text that says where the weights are published, and
`pull() → folder`, which brings them. The names of `fae_jax.encoders` are extractors too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jaxtyping import Array, Shaped

from fae_jax.encoders import registry
from fae_jax.files.names import nearest
from fae_jax.kinds import find, names

EXTRACTORS = {
    "inception": "fae_jax.extractors.inception:INCEPTION",
    "inception_clean": "fae_jax.extractors.inception:INCEPTION_CLEAN",
    "convnextv2_b": "fae_jax.extractors.convnext:CONVNEXTV2_B",
    "convnext_s": "fae_jax.extractors.convnext:CONVNEXT_S",
    "dino_s8": "fae_jax.extractors.dino:DINO_S8",
    "lpips_vgg": "fae_jax.extractors.lpips:VGG",
    "lpips_alex": "fae_jax.extractors.lpips:ALEX",
    "lpips_squeeze": "fae_jax.extractors.lpips:SQUEEZE",
    "fd_loss_convnext": "fae_jax.extractors.convnext:FD_LOSS_CONVNEXT",
    "fd_loss_dinov2": "fae_jax.extractors.encoders:FD_LOSS_DINOV2",
    "fd_loss_mae": "fae_jax.extractors.encoders:FD_LOSS_MAE",
    "fd_loss_siglip2": "fae_jax.extractors.encoders:FD_LOSS_SIGLIP2",
    "fd_loss_clip": "fae_jax.extractors.encoders:FD_LOSS_CLIP",
}
SMALLEST = 8  # pixels; a smaller image is a mistake, and no network was trained on one


@dataclasses.dataclass(frozen=True, kw_only=True)
class Extractor:
    """A frozen network.

    Attributes:
      name: as it was asked for.
      variant: the exact variant in words that a result can carry: weights, resize, size.
      weights_hash: SHA-256 of the parameters, hexadecimal.
      params: a nested dict of arrays.
      apply: (params, images (b, y, x, 3) uint8 of any size) → taps by name, float32, (b, d); a pure function. Where
        it is differentiated, images are float32 from 0 to 255.
      lacks: tap → why it is not among them, where the weights are not complete.
    """

    name: str
    variant: str
    weights_hash: str
    params: Any
    apply: Callable[[Any, Shaped[Array, "b y x 3"]], Mapping[str, Array]]
    lacks: Mapping[str, str] = dataclasses.field(default_factory=dict)


def holds_pixels(images: Any) -> bool:
    """Whether images are uint8, or float32 in a function that is traced, where slopes may go through them."""
    return images.dtype == "uint8" or (images.dtype == "float32" and isinstance(images, jax.core.Tracer))


def check_images(name: str, images: Any) -> None:
    """Raises ValueError where `images` are not (b, y, x, 3) of pixels, at least `SMALLEST` a side."""
    if not holds_pixels(images) or images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(
            f"{name!r} looks at images (b, y, x, 3) of uint8, got {images.shape} of {images.dtype}: "
            "floats in [-1, 1] become so by round((x + 1) * 127.5)"
        )
    if min(images.shape[1:3]) < SMALLEST:
        size = "×".join(map(str, images.shape[1:3]))
        raise ValueError(f"{name!r} looks at images of at least {SMALLEST}×{SMALLEST} pixels, got {size}")


def extractor_names() -> list[str]:
    """Every extractor that can be asked for, the encoders of the registry included."""
    return list(dict.fromkeys((*names("extractors", EXTRACTORS), *registry.names())))


def load_extractor(name: str, weights: str = "") -> Extractor:
    """The extractor called `name`, with its weights.

    Args:
      weights: a file or folder, for an encoder also a hub name; "" for where they are by default: what
        `fae weights pull NAME` brought.

    Raises:
      ValueError: there is none of that name (the nearest is named), or the weights are another network's.
      FileNotFoundError: the weights are not there; says which command brings them.
    """
    if name in names("extractors", EXTRACTORS):
        return find("extractors", EXTRACTORS, name)(name, weights)
    if name not in registry.names():
        raise ValueError(f"{name!r} is none of the extractors; {nearest(name, extractor_names())}")
    from fae_jax.extractors.encoders import of_encoder  # which itself needs what stands here

    return of_encoder(name, weights)
