"""The frozen networks and the registry that finds them by name."""

from fae_jax.encoders import pretrained, small, towers
from fae_jax.encoders.registry import (
    Encoder,
    EncoderOutput,
    TextEncoder,
    create,
    create_text,
    names,
    outline_text,
    register,
    register_text,
    text_names,
)

__all__ = [
    "Encoder",
    "EncoderOutput",
    "TextEncoder",
    "create",
    "create_text",
    "names",
    "outline_text",
    "pretrained",
    "register",
    "register_text",
    "small",
    "text_names",
    "towers",
]
