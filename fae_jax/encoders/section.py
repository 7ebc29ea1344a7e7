"""What configures the frozen encoder."""

from __future__ import annotations

import dataclasses
from typing import Any

from fae_jax.section import at_least, one_of, option, whole_numbers


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderSection:
    """The frozen encoder: a published one by name, or a ViT trained here."""

    name: str = option("dinov2_g14", "a registered encoder (fae_jax.encoders) or an entry point")
    weights: str = option("", "file, folder or hub name; empty = the encoder's own default")
    train: bool = option(False, "train it first, here (quickstart); False = published weights")
    revision: str = option("", "commit or tag of a hub name; empty = the newest")
    input_size: int = option(0, "side images are resized to for it; 0 = what fits its patch", at_least(0))
    resize: str = option("", "how images are resized: bicubic, bicubic_antialias, …; empty = the encoder's own")
    interpolation: str = option(
        "", "resizing its position table: bicubic, bicubic_offset, bicubic_antialias; empty = own"
    )
    layers: tuple[Any, ...] = option(
        (), "blocks whose patches make up the feature, −1 the last; () = the last alone", whole_numbers()
    )
    combine: str = option("sum", "how layers are combined: sum (RAEv2) or mean", one_of("mean", "sum"))
    feature_norm: str = option(
        "none",
        "none: raw features; standardise: per-channel mean 0, variance 1",
        one_of("none", "standardise"),
    )
    patch: int = option(
        14, "side of a patch at the encoder's input; this and below are used if trained here", at_least(1)
    )
    width: int = option(384, "channels", at_least(1))
    depth: int = option(12, "blocks", at_least(1))
    heads: int = option(6, "attention heads", at_least(1))
    hidden: int = option(1536, "inner width of the feed-forward", at_least(1))
