"""A published `config.json` → the `ViTConfig` it describes and the map of its names.

model_type           family           what marks a size
dinov2               DINOv2           use_swiglu_ffn in g
dinov2_with_registers DINOv2          num_register_tokens
dinov3_vit           DINOv3           use_gated_mlp in H+ and 7B
siglip, siglip_vision_model           SigLIP and SigLIP2 of fixed resolution
clip, clip_vision_model               CLIP; hidden_act says which GELU
vit_mae              MAE
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from fae_jax.encoders import name_maps
from fae_jax.encoders.vit import ViTConfig
from fae_jax.weights.mapping import NameMap

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "quick_gelu": "gelu_quick",
    "relu": "relu",
}
GATES = {"silu": "swiglu", "gelu": "geglu", "gelu_pytorch_tanh": "geglu_tanh"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recognised:
    """What a `config.json` says: the family's name, the network and where its file keeps the weights."""

    family: str
    config: ViTConfig
    names: NameMap


def activation(fields: Mapping[str, Any], default: str, known: Mapping[str, str] = ACTIVATIONS) -> str:
    """Our name of the activation a configuration asks for.

    Raises:
      ValueError: it is none of `known`.
    """
    asked = fields.get("hidden_act", default)
    if asked not in known:
        raise ValueError(f"config.json asks for hidden_act {asked!r}; known are {', '.join(known)}")
    return known[asked]


def _side(value: Any, field: str) -> int:
    """A size that may be written as a number or as two equal ones."""
    values = set(value) if isinstance(value, (list, tuple)) else {value}
    if len(values) != 1:
        raise ValueError(f"config.json has {field} {value}; only squares are known")
    return int(values.pop())


def _shape(fields: Mapping[str, Any], patch: int, image: int) -> dict[str, Any]:
    patch = _side(fields.get("patch_size", patch), "patch_size")
    side = _side(fields.get("image_size", image), "image_size") // patch
    return {
        "patch": patch,
        "width": fields.get("hidden_size", 768),
        "depth": fields.get("num_hidden_layers", 12),
        "heads": fields.get("num_attention_heads", 12),
        "channels": fields.get("num_channels", 3),
        "table_grid": (side, side),
    }


def _dinov2(fields: Mapping[str, Any]) -> tuple[ViTConfig, NameMap]:
    shape, registers = _shape(fields, 14, 518), fields["model_type"].endswith("registers")
    inner = int(shape["width"] * fields.get("mlp_ratio", 4))
    gated = fields.get("use_swiglu_ffn", False)
    heads = any("ImageClassification" in name for name in fields.get("architectures") or ())
    config = ViTConfig(
        **shape,
        hidden=(int(inner * 2 / 3) + 7) // 8 * 8 if gated else inner,
        feed_forward="swiglu" if gated else activation(fields, "gelu"),
        norm_epsilon=fields.get("layer_norm_eps", 1e-6),
        layer_scale=fields.get("layerscale_value", 1.0),
        qkv_bias=fields.get("qkv_bias", True),
        registers=fields.get("num_register_tokens", 4) if registers else 0,
        interpolation="bicubic_antialias" if registers else "bicubic",
        classes=len(fields.get("id2label") or range(fields.get("num_labels", 2))) if heads else 0,
        classifier="cls_mean",
    )
    return config, name_maps.dinov2(config)


def _dinov3(fields: Mapping[str, Any]) -> tuple[ViTConfig, NameMap]:
    gated = fields.get("use_gated_mlp", False)
    config = ViTConfig(
        **{**_shape(fields, 16, 224), "table_grid": None, "width": fields.get("hidden_size", 384)},
        hidden=fields.get("intermediate_size", 1536),
        feed_forward=activation(fields, "gelu", GATES if gated else ACTIVATIONS),
        norm_epsilon=fields.get("layer_norm_eps", 1e-5),
        layer_scale=fields.get("layerscale_value", 1.0),
        qkv_bias=any(fields.get(f"{name}_bias", name != "key") for name in ("query", "key", "value")),
        out_bias=fields.get("proj_bias", True),
        feed_forward_bias=fields.get("mlp_bias", True),
        registers=fields.get("num_register_tokens", 0),
        rotary_theta=fields.get("rope_theta", 100.0),
    )
    return config, name_maps.dinov3(config)


def _mae(fields: Mapping[str, Any]) -> tuple[ViTConfig, NameMap]:
    config = ViTConfig(
        **_shape(fields, 16, 224),
        hidden=fields.get("intermediate_size", 3072),
        feed_forward=activation(fields, "gelu"),
        norm_epsilon=fields.get("layer_norm_eps", 1e-12),
        qkv_bias=fields.get("qkv_bias", True),
    )
    return config, name_maps.mae(config)


def _siglip(fields: Mapping[str, Any]) -> tuple[ViTConfig, NameMap]:
    fields = fields.get("vision_config", fields)
    config = ViTConfig(
        **_shape(fields, 16, 224),
        hidden=fields.get("intermediate_size", 3072),
        feed_forward=activation(fields, "gelu_pytorch_tanh"),
        norm_epsilon=fields.get("layer_norm_eps", 1e-6),
        cls_token=False,
        pooling="attention" if fields.get("vision_use_head", True) else "none",
    )
    return config, name_maps.siglip(config)


def _clip(fields: Mapping[str, Any]) -> tuple[ViTConfig, NameMap]:
    both = fields["model_type"] == "clip"
    projects = both or any(name.endswith("WithProjection") for name in fields.get("architectures") or ())
    vision = fields.get("vision_config", {}) if both else fields
    config = ViTConfig(
        **_shape(vision, 32, 224),
        hidden=vision.get("intermediate_size", 3072),
        feed_forward=activation(vision, "quick_gelu"),
        norm_epsilon=vision.get("layer_norm_eps", 1e-5),
        patch_bias=False,
        pre_norm=True,
        final_norm="cls",
        pooling="cls",
        projection=fields.get("projection_dim", 512) if projects else 0,
    )
    return config, name_maps.clip(config)


FAMILIES: dict[str, tuple[str, Callable[[Mapping[str, Any]], tuple[ViTConfig, NameMap]]]] = {
    "dinov2": ("dinov2", _dinov2),
    "dinov2_with_registers": ("dinov2", _dinov2),
    "dinov3_vit": ("dinov3", _dinov3),
    "vit_mae": ("mae", _mae),
    "siglip": ("siglip", _siglip),
    "siglip_vision_model": ("siglip", _siglip),
    "clip": ("clip", _clip),
    "clip_vision_model": ("clip", _clip),
}


def recognise(fields: Mapping[str, Any]) -> Recognised:
    """Reads the contents of a `config.json`.

    Raises:
      ValueError: the model type is unknown, or a field asks for what the family's network cannot be.
    """
    kind = fields.get("model_type")
    if kind not in FAMILIES:
        raise ValueError(
            f"config.json describes a {kind!r}; encoders of these types are known: {', '.join(FAMILIES)}"
        )
    family, read = FAMILIES[kind]
    config, names = read(fields)
    return Recognised(family=family, config=config, names=names)
