"""The frozen networks and the registry that finds them by name."""

from fae_jax.encoders import pretrained, small, towers
from fae_jax.encoders.registry import (
    ENTRY_POINT_GROUP,
    TEXT_ENTRY_POINT_GROUP,
    Encoder,
    EncoderOutput,
    TextEncoder,
    create,
    create_text,
    names,
    register,
    register_text,
    text_names,
)
from fae_jax.encoders.vit import ViT, ViTConfig

__all__ = [
    "ENTRY_POINT_GROUP",
    "TEXT_ENTRY_POINT_GROUP",
    "Encoder",
    "EncoderOutput",
    "TextEncoder",
    "ViT",
    "ViTConfig",
    "create",
    "create_text",
    "names",
    "pretrained",
    "register",
    "register_text",
    "small",
    "text_names",
    "towers",
]
