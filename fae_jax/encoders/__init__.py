"""The frozen networks and the registry that finds them by name."""

from fae_jax.encoders import pretrained, small
from fae_jax.encoders.registry import ENTRY_POINT_GROUP, Encoder, EncoderOutput, create, names, register
from fae_jax.encoders.vit import ViT, ViTConfig

__all__ = [
    "ENTRY_POINT_GROUP",
    "Encoder",
    "EncoderOutput",
    "ViT",
    "ViTConfig",
    "create",
    "names",
    "pretrained",
    "register",
    "small",
]
