"""The frozen encoder that a configuration describes: with its weights, or with shapes in their place."""

from __future__ import annotations

import dataclasses
from typing import Any

from fae_jax.encoders import registry, small
from fae_jax.encoders.vit import ViTConfig

TRAINED_HERE = ("patch", "width", "depth", "heads", "hidden")


def options(config: Any) -> dict[str, Any]:
    """What a configuration says of an encoder beside its name, weights and images."""
    encoder = config.encoder
    names = ("input_size", "interpolation", "resize", "layers", "revision")
    chosen = {name: getattr(encoder, name) for name in names if getattr(encoder, name)}
    if encoder.layers:
        chosen["combine"] = encoder.combine
    return {**chosen, **{name: getattr(config.compute, name) for name in ("dtype", "kernel", "scan")}}


def trained_here(config: Any) -> ViTConfig:
    """The ViT that `config.encoder` describes where it is trained here, with a class head."""
    # The class is read off the mean patch alone, so that patch tokens, which FAE keeps, have to hold it.
    return small.small_config(
        image_size=config.data.image_size,
        classes=config.data.classes,
        classifier="mean",
        **{name: getattr(config.encoder, name) for name in TRAINED_HERE},
    )


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
    weights = config.encoder.weights or None
    return registry.create(config.encoder.name, weights=weights, image_size=config.data.image_size, **options(config))


def outline(config: Any) -> registry.Encoder:
    """The encoder with shapes in the place of its weights.

    Raises:
      ValueError, FileNotFoundError: see `fae_jax.encoders.registry.outline`.
    """
    image_size = config.data.image_size
    if config.encoder.train:
        compute = {name: getattr(config.compute, name) for name in ("dtype", "kernel", "scan")}
        return small.outline(config=trained_here(config), image_size=image_size, **compute)
    weights = config.encoder.weights or None
    return registry.outline(config.encoder.name, weights=weights, image_size=image_size, **options(config))
