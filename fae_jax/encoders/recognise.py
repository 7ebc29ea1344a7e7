"""A published `config.json` → the `ViTConfig` it describes, and where its file keeps what that network needs.

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

import flax.linen as nn
import jax
import jax.numpy as jnp

from fae_jax.encoders.vit import ViT, ViTConfig
from fae_jax.nn.blocks import GATED
from fae_jax.weights.mapping import (
    LINEAR,
    NameMap,
    Part,
    Rule,
    convolution,
    leading,
    linear,
    norm,
    rotary_halves,
)

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "quick_gelu": "gelu_quick",
    "relu": "relu",
}
GATES = {"silu": "swiglu", "gelu": "geglu", "gelu_pytorch_tanh": "geglu_tanh"}

# Our module → the file's, for `table`
_BLOCK = "trunk.blocks.block."
_MLP = {"feed_forward.hidden": "mlp.fc1", "feed_forward.out": "mlp.fc2"}
_DINO = {
    "attention_norm": "norm1",
    "feed_forward_norm": "norm2",
    "attention_scale": "layer_scale1.lambda1",
    "feed_forward_scale": "layer_scale2.lambda1",
}
_VIT_ATTENTION = {  # as `transformers` names it in DINOv2 and MAE
    "attention.qkv": "attention.attention.query attention.attention.key attention.attention.value",
    "attention.out": "attention.output.dense",
}
_CONTRASTIVE = {
    "attention.qkv": "self_attn.q_proj self_attn.k_proj self_attn.v_proj",
    "attention.out": "self_attn.out_proj",
    **_MLP,
    "attention_norm": "layer_norm1",
    "feed_forward_norm": "layer_norm2",
}
_OTHER_TOWER = r"^text_model\.|^text_projection\.|^logit_(scale|bias)$|position_ids$"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recognised:
    """What a `config.json` says: the family's name, the network and where its file keeps the weights.

    Attributes:
      network: `ViT`, `TextTower` or `T5Encoder`.
      config: its configuration.
    """

    family: str
    network: type[nn.Module]
    config: Any
    names: NameMap

    def module(self, **fields: Any) -> Any:
        """The network itself; `fields` are those it has beside its configuration."""
        return self.network(self.config, **fields)

    def shapes(self) -> dict[str, Any]:
        """The parameters' shapes, a nested dict of `jax.ShapeDtypeStruct`s, without allocating any."""
        inputs = jax.ShapeDtypeStruct((1, 2), jnp.int32)
        if isinstance(self.config, ViTConfig):
            side = self.config.patch * 2
            inputs = jax.ShapeDtypeStruct((1, side, side, self.config.channels), jnp.float32)
        return jax.eval_shape(self.module(scan=True).init, jax.random.key(0), inputs)["params"]


def table(ours: str, theirs: str, names: Mapping[str, str], *, bias: Mapping[str, bool] | bool = True) -> list[Rule]:
    """Rules of the modules `names`, behind the prefixes `ours` and `theirs`.

    Args:
      names: our module → modules in the file, separated by spaces, whose outputs lie side by side in ours. A `…norm`
        is a norm, a `…scale` an array, anything else a linear.
      bias: whether modules carry one, for all or by our name (True where a name is missing).
    """
    rules = []
    for name, modules in names.items():
        target, parts = ours + name, [theirs + module for module in modules.split()]
        if name.endswith("scale"):
            rules.append(Rule(target, (Part(parts[0]),)))
        else:
            biased = bias if isinstance(bias, bool) else bias.get(name, True)
            rules += (norm if name.endswith("norm") else linear)(target, *parts, bias=biased)
    return rules


def contrastive_blocks(block: str) -> list[Rule]:
    """The blocks of CLIP and SigLIP, of images and of text alike."""
    return table(block, "encoder.layers.{layer}.", _CONTRASTIVE)


def _embedding(
    config: ViTConfig,
    patch: str = "patch_embeddings.projection",
    cls: str = "cls_token",
    positions: str = "position_embeddings",
    *,
    ones: int = 1,
) -> list[Rule]:
    """Patch embedding, class token (with `ones` leading axes of size 1), position table and registers."""
    layout = convolution(config.patch, config.channels)
    rules = linear("trunk.patch_embed", f"embeddings.{patch}", bias=config.patch_bias, layout=layout)
    if config.cls_token:
        rules.append(Rule("trunk.cls_token", (Part(f"embeddings.{cls}", leading(ones)),)))
    if config.table_grid is not None:
        rules.append(Rule("trunk.position_table", (Part(f"embeddings.{positions}", leading(max(ones, 0))),)))
    if config.registers:
        rules.append(Rule("trunk.registers", (Part("embeddings.register_tokens", leading(1)),)))
    return rules


def activation(fields: Mapping[str, Any], default: str, known: Mapping[str, str] = ACTIVATIONS) -> str:
    """Our name of the activation a configuration asks for.

    Raises:
      ValueError: it is none of `known`.
    """
    asked = fields.get("hidden_act", default)
    if asked not in known:
        raise ValueError(f"config.json asks for hidden_act {asked!r}; known are {', '.join(known)}")
    return known[asked]


def sizes(
    fields: Mapping[str, Any], *, width: int = 768, heads: int = 12, hidden: int = 3072, epsilon: float = 1e-6
) -> dict[str, Any]:
    """What CLIP's and SigLIP's towers and every ViT have in common, with the family's defaults."""
    return {
        "width": fields.get("hidden_size", width),
        "depth": fields.get("num_hidden_layers", 12),
        "heads": fields.get("num_attention_heads", heads),
        "hidden": fields.get("intermediate_size", hidden),
        "norm_epsilon": fields.get("layer_norm_eps", epsilon),
    }


def _side(value: Any, field: str) -> int:
    """A size that may be written as a number or as two equal ones."""
    values = set(value) if isinstance(value, (list, tuple)) else {value}
    if len(values) != 1:
        raise ValueError(f"config.json has {field} {value}; only squares are known")
    return int(values.pop())


def _patches(fields: Mapping[str, Any], patch: int, image: int) -> dict[str, Any]:
    patch = _side(fields.get("patch_size", patch), "patch_size")
    side = _side(fields.get("image_size", image), "image_size") // patch
    return {"patch": patch, "channels": fields.get("num_channels", 3), "table_grid": (side, side)}


def _dinov2(fields: Mapping[str, Any]) -> tuple[ViTConfig, NameMap]:
    """With and without registers, with or without its linear classifier."""
    shape, registers = sizes(fields), fields["model_type"].endswith("registers")
    inner = int(shape["width"] * fields.get("mlp_ratio", 4))
    gated = fields.get("use_swiglu_ffn", False)
    heads = any("ImageClassification" in name for name in fields.get("architectures") or ())
    config = ViTConfig(
        **_patches(fields, 14, 518),
        **{**shape, "hidden": (int(inner * 2 / 3) + 7) // 8 * 8 if gated else inner},
        feed_forward="swiglu" if gated else activation(fields, "gelu"),
        layer_scale=fields.get("layerscale_value", 1.0),
        qkv_bias=fields.get("qkv_bias", True),
        registers=fields.get("num_register_tokens", 4) if registers else 0,
        # the authors' own ways; transformers has neither offset nor antialias
        interpolation="bicubic_antialias" if registers else "bicubic_offset",
        classes=len(fields.get("id2label") or range(fields.get("num_labels", 2))) if heads else 0,
        classifier="cls_mean",
    )
    feed = {"feed_forward.gate_and_value": "mlp.weights_in", "feed_forward.out": "mlp.weights_out"} if gated else _MLP
    names = {**_VIT_ATTENTION, **feed, **_DINO}
    rules = [
        *_embedding(config),
        *table(_BLOCK, "encoder.layer.{layer}.", names, bias={"attention.qkv": config.qkv_bias}),
        *norm("last_norm", "layernorm"),
        *(linear("classifier_head", "/classifier") if heads else ()),
    ]
    ignored = r"mask_token$" if heads else r"mask_token$|^classifier\."
    return config, NameMap(tuple(rules), prefixes=("", "dinov2.", "dinov2_with_registers."), ignored=ignored)


def _dinov3(fields: Mapping[str, Any]) -> tuple[ViTConfig, NameMap]:
    """Keys without bias, rotary pairs half a head apart, gated feed-forward in the largest."""
    config = ViTConfig(
        **{**_patches(fields, 16, 224), "table_grid": None},
        **sizes(fields, width=384, hidden=1536, epsilon=1e-5),
        feed_forward=activation(fields, "gelu", GATES if fields.get("use_gated_mlp", False) else ACTIVATIONS),
        layer_scale=fields.get("layerscale_value", 1.0),
        qkv_bias=any(fields.get(f"{name}_bias", name != "key") for name in ("query", "key", "value")),
        out_bias=fields.get("proj_bias", True),
        feed_forward_bias=fields.get("mlp_bias", True),
        registers=fields.get("num_register_tokens", 0),
        rotary_theta=fields.get("rope_theta", 100.0),
    )
    layer, gated = "layer.{layer}.", config.feed_forward in GATED
    layouts = {f"{layer}attention.{name}_proj": rotary_halves(config.heads) for name in "qk"}
    layouts[f"{layer}attention.v_proj"] = LINEAR
    kernels = tuple(Part(f"{name}.weight", layout) for name, layout in layouts.items())
    biases = tuple(Part(f"{name}.bias", layout, absent=0.0) for name, layout in layouts.items())
    hidden = {"gate_and_value": "mlp.gate_proj mlp.up_proj"} if gated else {"hidden": "mlp.up_proj"}
    feed = {f"feed_forward.{name}": modules for name, modules in {**hidden, "out": "mlp.down_proj"}.items()}
    bias = {"attention.out": config.out_bias, **dict.fromkeys(feed, config.feed_forward_bias)}
    rules = [
        *_embedding(config, "patch_embeddings"),
        Rule(f"{_BLOCK}attention.qkv.kernel", kernels),
        *([Rule(f"{_BLOCK}attention.qkv.bias", biases)] if config.qkv_bias else ()),
        *table(_BLOCK, layer, {"attention.out": "attention.o_proj", **feed, **_DINO}, bias=bias),
        *norm("last_norm", "norm"),
    ]
    ignored = r"mask_token$" if config.registers else r"mask_token$|register_tokens$"
    return config, NameMap(tuple(rules), prefixes=("", "model.", "dinov3_vit."), ignored=ignored)


def _mae(fields: Mapping[str, Any]) -> tuple[ViTConfig, NameMap]:
    """The encoder; its decoder is left alone."""
    config = ViTConfig(
        **_patches(fields, 16, 224),
        **sizes(fields, epsilon=1e-12),
        feed_forward=activation(fields, "gelu"),
        qkv_bias=fields.get("qkv_bias", True),
    )
    names = {
        **_VIT_ATTENTION,
        "feed_forward.hidden": "intermediate.dense",
        "feed_forward.out": "output.dense",
        "attention_norm": "layernorm_before",
        "feed_forward_norm": "layernorm_after",
    }
    rules = [
        *_embedding(config),
        *table(_BLOCK, "encoder.layer.{layer}.", names, bias={"attention.qkv": config.qkv_bias}),
        *norm("last_norm", "layernorm"),
    ]
    return config, NameMap(tuple(rules), prefixes=("", "vit."), ignored=r"^decoder\.")


def _siglip(fields: Mapping[str, Any]) -> tuple[ViTConfig, NameMap]:
    """SigLIP's and SigLIP2's tower for images, attention pooling included."""
    fields = fields.get("vision_config", fields)
    pools = fields.get("vision_use_head", True)
    config = ViTConfig(
        **_patches(fields, 16, 224),
        **sizes(fields),
        feed_forward=activation(fields, "gelu_pytorch_tanh"),
        cls_token=False,
        pooling="attention" if pools else "none",
    )
    rules = [
        *_embedding(config, "patch_embedding", "", "position_embedding.weight", ones=0),
        *contrastive_blocks(_BLOCK),
        *norm("last_norm", "post_layernorm"),
    ]
    if pools:
        rules += [
            Rule("attention_pool.probe", (Part("head.probe", leading(1)),)),
            Rule("attention_pool.joint_kernel", (Part("head.attention.in_proj_weight", LINEAR),)),
            Rule("attention_pool.joint_bias", (Part("head.attention.in_proj_bias"),)),
            *table("attention_pool.", "head.", {"out": "attention.out_proj", "norm": "layernorm", **_MLP}),
        ]
    return config, NameMap(tuple(rules), prefixes=("vision_model.", ""), ignored=_OTHER_TOWER)


def projection(fields: Mapping[str, Any]) -> int:
    """Width in which CLIP's towers meet; 0 for a tower alone that has no projection."""
    projects = any(name.endswith("WithProjection") for name in fields.get("architectures") or ())
    return fields.get("projection_dim", 512) if projects or fields["model_type"] == "clip" else 0


def _clip(fields: Mapping[str, Any]) -> tuple[ViTConfig, NameMap]:
    vision = fields.get("vision_config", {}) if fields["model_type"] == "clip" else fields
    config = ViTConfig(
        **_patches(vision, 32, 224),
        **sizes(vision, epsilon=1e-5),
        feed_forward=activation(vision, "quick_gelu"),
        patch_bias=False,
        pre_norm=True,
        final_norm="cls",
        pooling="cls",
        projection=projection(fields),
    )
    rules = [
        *_embedding(config, "patch_embedding", "class_embedding", "position_embedding.weight", ones=-1),
        *contrastive_blocks(_BLOCK),
        *norm("trunk.pre_norm", "pre_layrnorm"),
        *norm("last_norm", "post_layernorm"),
        *(linear("projection_head", "/visual_projection", bias=False) if config.projection else ()),
    ]
    return config, NameMap(tuple(rules), prefixes=("vision_model.", ""), ignored=_OTHER_TOWER)


Family = tuple[str, type[nn.Module], Callable[[Mapping[str, Any]], tuple[Any, NameMap]]]
FAMILIES: dict[str, Family] = {
    "dinov2": ("dinov2", ViT, _dinov2),
    "dinov2_with_registers": ("dinov2", ViT, _dinov2),
    "dinov3_vit": ("dinov3", ViT, _dinov3),
    "vit_mae": ("mae", ViT, _mae),
    "siglip": ("siglip", ViT, _siglip),
    "siglip_vision_model": ("siglip", ViT, _siglip),
    "clip": ("clip", ViT, _clip),
    "clip_vision_model": ("clip", ViT, _clip),
}


def recognise(
    fields: Mapping[str, Any], families: Mapping[str, Family] = FAMILIES, what: str = "encoders"
) -> Recognised:
    """Reads the contents of a `config.json`.

    Args:
      families: by model type; those of text are in `fae_jax.encoders.recognise_text`.
      what: these families in a word, for the error.

    Raises:
      ValueError: the model type is unknown, or a field asks for what the family's network cannot be.
    """
    kind = fields.get("model_type")
    if kind is None or kind not in families:
        raise ValueError(f"config.json describes a {kind!r}; {what} of these types are known: {', '.join(families)}")
    family, network, read = families[kind]
    config, names = read(fields)
    return Recognised(family=family, network=network, config=config, names=names)
