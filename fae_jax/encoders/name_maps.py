"""Where each family's published files keep what our networks need: tables of names, one function per family."""

from __future__ import annotations

from collections.abc import Mapping

from fae_jax.encoders.vit import ViTConfig
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

_BLOCK = "trunk.blocks.block."
_NORMS = {"attention_norm": "norm1", "feed_forward_norm": "norm2"}
_SCALES = {"attention_scale": "layer_scale1.lambda1", "feed_forward_scale": "layer_scale2.lambda1"}
_VIT_ATTENTION = {  # as `transformers` names it in DINOv2 and MAE
    "attention.qkv": "attention.attention.query attention.attention.key attention.attention.value",
    "attention.out": "attention.output.dense",
}
_CONTRASTIVE = {  # blocks of CLIP and SigLIP, of images and of text alike
    "attention.qkv": "self_attn.q_proj self_attn.k_proj self_attn.v_proj",
    "attention.out": "self_attn.out_proj",
    "feed_forward.hidden": "mlp.fc1",
    "feed_forward.out": "mlp.fc2",
    "attention_norm": "layer_norm1",
    "feed_forward_norm": "layer_norm2",
}


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


def _embedding(config: ViTConfig, patch: str, cls: str, positions: str, *, ones: int = 1) -> list[Rule]:
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


def dinov2(config: ViTConfig) -> NameMap:
    """DINOv2, with and without registers and with or without its linear classifier."""
    if config.feed_forward == "swiglu":
        feed = {"feed_forward.gate_and_value": "mlp.weights_in", "feed_forward.out": "mlp.weights_out"}
    else:
        feed = {"feed_forward.hidden": "mlp.fc1", "feed_forward.out": "mlp.fc2"}
    names = {**_VIT_ATTENTION, **feed, **_SCALES, **_NORMS}
    rules = [
        *_embedding(config, "patch_embeddings.projection", "cls_token", "position_embeddings"),
        *table(_BLOCK, "encoder.layer.{layer}.", names, bias={"attention.qkv": config.qkv_bias}),
        *norm("last_norm", "layernorm"),
        *(linear("classifier_head", "classifier") if config.classes else ()),
    ]
    return NameMap(
        tuple(rules),
        anchor="embeddings.cls_token",
        prefixes=("", "dinov2.", "dinov2_with_registers."),
        ignored=r"mask_token$" if config.classes else r"mask_token$|^classifier\.",
        absolute=("classifier.",),
    )


def dinov3(config: ViTConfig) -> NameMap:
    """DINOv3: keys without bias, rotary pairs half a head apart, gated feed-forward in the largest."""
    layer, gated = "layer.{layer}.", config.feed_forward in GATED
    layouts = {f"{layer}attention.{name}_proj": rotary_halves(config.heads) for name in "qk"}
    layouts[f"{layer}attention.v_proj"] = LINEAR
    kernels = tuple(Part(f"{name}.weight", layout) for name, layout in layouts.items())
    biases = tuple(Part(f"{name}.bias", layout, absent=0.0) for name, layout in layouts.items())
    hidden = {"gate_and_value": "mlp.gate_proj mlp.up_proj"} if gated else {"hidden": "mlp.up_proj"}
    feed = {f"feed_forward.{name}": modules for name, modules in {**hidden, "out": "mlp.down_proj"}.items()}
    bias = {"attention.out": config.out_bias, **dict.fromkeys(feed, config.feed_forward_bias)}
    rules = [
        *_embedding(config, "patch_embeddings", "cls_token", ""),
        Rule(f"{_BLOCK}attention.qkv.kernel", kernels),
        *([Rule(f"{_BLOCK}attention.qkv.bias", biases)] if config.qkv_bias else ()),
        *table(_BLOCK, layer, {"attention.out": "attention.o_proj", **feed, **_SCALES, **_NORMS}, bias=bias),
        *norm("last_norm", "norm"),
    ]
    return NameMap(
        tuple(rules),
        anchor="embeddings.cls_token",
        prefixes=("", "model.", "dinov3_vit."),
        ignored=r"mask_token$" if config.registers else r"mask_token$|register_tokens$",
    )


def mae(config: ViTConfig) -> NameMap:
    """MAE's encoder; its decoder is left alone."""
    names = {
        **_VIT_ATTENTION,
        "feed_forward.hidden": "intermediate.dense",
        "feed_forward.out": "output.dense",
        "attention_norm": "layernorm_before",
        "feed_forward_norm": "layernorm_after",
    }
    rules = [
        *_embedding(config, "patch_embeddings.projection", "cls_token", "position_embeddings"),
        *table(_BLOCK, "encoder.layer.{layer}.", names, bias={"attention.qkv": config.qkv_bias}),
        *norm("last_norm", "layernorm"),
    ]
    return NameMap(tuple(rules), anchor="embeddings.cls_token", prefixes=("", "vit."), ignored=r"^decoder\.")


_OTHER_TOWER = r"^text_model\.|^text_projection\.|^logit_(scale|bias)$|position_ids$"


def siglip(config: ViTConfig) -> NameMap:
    """SigLIP's and SigLIP2's tower for images, attention pooling included."""
    pool = {"out": "attention.out_proj", "norm": "layernorm"}
    pool |= {"feed_forward.hidden": "mlp.fc1", "feed_forward.out": "mlp.fc2"}
    rules = [
        *_embedding(config, "patch_embedding", "", "position_embedding.weight", ones=0),
        *contrastive_blocks(_BLOCK),
        *norm("last_norm", "post_layernorm"),
    ]
    if config.pooling == "attention":
        rules += [
            Rule("attention_pool.probe", (Part("head.probe", leading(1)),)),
            Rule("attention_pool.joint_kernel", (Part("head.attention.in_proj_weight", LINEAR),)),
            Rule("attention_pool.joint_bias", (Part("head.attention.in_proj_bias"),)),
            *table("attention_pool.", "head.", pool),
        ]
    return NameMap(
        tuple(rules),
        anchor="embeddings.patch_embedding.weight",
        prefixes=("vision_model.", ""),
        ignored=_OTHER_TOWER,
    )


def clip(config: ViTConfig) -> NameMap:
    """CLIP's tower for images."""
    rules = [
        *_embedding(config, "patch_embedding", "class_embedding", "position_embedding.weight", ones=-1),
        *contrastive_blocks(_BLOCK),
        *norm("trunk.pre_norm", "pre_layrnorm"),
        *norm("last_norm", "post_layernorm"),
    ]
    if config.projection:
        rules += linear("projection_head", "visual_projection", bias=False)
    return NameMap(
        tuple(rules),
        anchor="embeddings.class_embedding",
        prefixes=("vision_model.", ""),
        ignored=_OTHER_TOWER,
        absolute=("visual_projection.",),
    )
