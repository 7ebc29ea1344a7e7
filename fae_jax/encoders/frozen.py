"""The frozen encoder that a configuration describes: with its weights, or with shapes in their place."""

from __future__ import annotations

import dataclasses
from typing import Any

from fae_jax.encoders import registry, small
from fae_jax.encoders.vit import ViTConfig
from fae_jax.section import at_least, one_of, option, whole_numbers

COMPUTE = ("dtype", "kernel", "scan")
PUBLISHED = ("name", "weights", "revision", "input_size", "resize", "interpolation", "layers")
RAW = ("dinov2_g14", "dinov2_g14_reg")  # encoders whose features the paper takes as they are
TRAINED_HERE = ("patch", "width", "depth", "heads", "hidden")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderSection:
    """The frozen encoder: a published one by name, or a ViT trained here."""

    name: str = option("dinov2_g14", "a registered encoder (fae_jax.encoders) or an entry point")
    weights: str = option("", "file, folder or hub name; empty = the encoder's own default", path=True)
    train: bool = option(False, "train it first, here (quickstart); False = published weights")
    revision: str = option("", "commit or tag of a hub name; empty = the newest")
    input_size: int = option(0, "side images are resized to for it; 0 = what fits its patch", at_least(0))
    resize: str = option("", "how images are resized: bicubic, bicubic_antialias, …; empty = the encoder's own")
    interpolation: str = option(
        "", "resizing its position table: bicubic, bicubic_offset, bicubic_antialias; empty = its authors' own"
    )
    layers: tuple[Any, ...] = option(
        (), "blocks whose patches make up the feature, −1 the last; () = the last alone", whole_numbers()
    )
    combine: str = option("sum", "how layers are combined: sum (RAEv2) or mean", one_of("mean", "sum"))
    feature_norm: str = option(
        "auto",
        "none: raw features; standardise: per-channel mean 0, variance 1; auto: none for DINOv2-g alone",
        one_of("auto", "none", "standardise"),
    )
    patch: int = option(
        14, "side of a patch at the encoder's input; this and below are used if trained here", at_least(1)
    )
    width: int = option(384, "channels", at_least(1))
    depth: int = option(12, "blocks", at_least(1))
    heads: int = option(6, "attention heads", at_least(1))
    hidden: int = option(1536, "inner width of the feed-forward", at_least(1))

    def check(self) -> None:
        if not self.train:
            return
        for name in PUBLISHED:
            value = getattr(self, name)
            if value and value != small.NAME:
                raise ValueError(
                    f"{name}={value!r} is of published encoders, and train=True trains {small.NAME!r} here: set "
                    f"encoder.name={small.NAME} and leave the others out, or set train=False"
                )

    @property
    def chosen_norm(self) -> str:
        """`feature_norm`, or what `auto` stands for."""
        if self.feature_norm != "auto":
            return self.feature_norm
        return "none" if self.name in RAW else "standardise"


def _fields(section: Any, *names: str) -> dict[str, Any]:
    return {name: getattr(section, name) for name in names}


def _request(config: Any) -> dict[str, Any]:
    """The arguments of `registry.create` and `registry.outline`; fields that say nothing are left out."""
    encoder = config.encoder
    given = _fields(encoder, "input_size", "interpolation", "resize", "layers", "revision")
    if encoder.layers:
        given["combine"] = encoder.combine
    chosen = {name: value for name, value in given.items() if value}
    where = {"name": encoder.name, "weights": encoder.weights or None, "image_size": config.data.image_size}
    return {**where, **chosen, **_fields(config.compute, *COMPUTE)}


def trained_here(config: Any) -> ViTConfig:
    """The ViT that `config.encoder` describes where it is trained here, with a class head."""
    side = config.data.image_size // config.encoder.patch
    # The class is read off the mean patch alone, so that patch tokens, which FAE keeps, have to hold it.
    head = {"classes": config.data.classes, "classifier": "mean"}
    return ViTConfig(**_fields(config.encoder, *TRAINED_HERE), **head, table_grid=(side, side))


def with_trained(config: Any, folder: str) -> Any:
    """The configuration with the encoder's weights in `folder`, where it is trained here."""
    if not config.encoder.train:
        return config
    return dataclasses.replace(config, encoder=dataclasses.replace(config.encoder, weights=folder))


def open_encoder(config: Any) -> registry.Encoder:
    """The encoder with its weights; `encoder.weights` names the folder of one that was trained here.

    Raises:
      ValueError, FileNotFoundError: it is unknown, or its weights are not there or of another network.
    """
    return registry.create(**_request(config))


def outline(config: Any) -> registry.Encoder:
    """The encoder with shapes in the place of its weights.

    Raises:
      ValueError, FileNotFoundError: see `fae_jax.encoders.registry.outline`.
    """
    if config.encoder.train:
        compute = _fields(config.compute, *COMPUTE)
        return small.outline(config=trained_here(config), image_size=config.data.image_size, **compute)
    return registry.outline(**_request(config))
