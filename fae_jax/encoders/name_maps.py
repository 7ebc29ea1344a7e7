"""Where each family's published files keep what our networks need: tables of names, one function per family."""

from __future__ import annotations

from fae_jax.encoders.vit import ViTConfig
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

_BLOCK = "trunk.blocks.block"


def _feed_forward(config: ViTConfig, block: str, hidden: str, out: str) -> list[Rule]:
    return [
        *linear(f"{block}.feed_forward.hidden", hidden, bias=config.feed_forward_bias),
        *linear(f"{block}.feed_forward.out", out, bias=config.feed_forward_bias),
    ]


def _embedding(config: ViTConfig, patch: str, cls: str, table: str, *, ones: int) -> list[Rule]:
    """Patch embedding, class token (with `ones` leading axes of size 1) and position table."""
    layout = convolution(config.patch, config.channels)
    rules = linear("trunk.patch_embed", patch, bias=config.patch_bias, layout=layout)
    if config.cls_token:
        rules.append(Rule("trunk.cls_token", (Part(cls, leading(ones)),)))
    if config.table_grid is not None:
        rules.append(Rule("trunk.position_table", (Part(table, leading(max(ones, 0))),)))
    return rules


def _layer_scale(layer: str) -> list[Rule]:
    return [
        Rule(f"{_BLOCK}.attention_scale", (Part(f"{layer}.layer_scale1.lambda1"),)),
        Rule(f"{_BLOCK}.feed_forward_scale", (Part(f"{layer}.layer_scale2.lambda1"),)),
    ]


def _vit_attention(config: ViTConfig, layer: str) -> list[Rule]:
    """Attention as `transformers` names it in DINOv2 and MAE."""
    inner = f"{layer}.attention.attention"
    names = [f"{inner}.{name}" for name in ("query", "key", "value")]
    return [
        *linear(f"{_BLOCK}.attention.qkv", *names, bias=config.qkv_bias),
        *linear(f"{_BLOCK}.attention.out", f"{layer}.attention.output.dense"),
    ]


def _classifier(config: ViTConfig) -> list[Rule]:
    return linear("classifier_head", "classifier") if config.classes else []


def dinov2(config: ViTConfig) -> NameMap:
    """DINOv2, with and without registers and with or without its linear classifier."""
    layer = "encoder.layer.{layer}"
    rules = _embedding(
        config,
        "embeddings.patch_embeddings.projection",
        "embeddings.cls_token",
        "embeddings.position_embeddings",
        ones=1,
    )
    if config.registers:
        rules.append(Rule("trunk.registers", (Part("embeddings.register_tokens", leading(1)),)))
    if config.feed_forward == "swiglu":
        rules += [
            *linear(f"{_BLOCK}.feed_forward.gate_and_value", f"{layer}.mlp.weights_in"),
            *linear(f"{_BLOCK}.feed_forward.out", f"{layer}.mlp.weights_out"),
        ]
    else:
        rules += _feed_forward(config, _BLOCK, f"{layer}.mlp.fc1", f"{layer}.mlp.fc2")
    rules += [
        *_vit_attention(config, layer),
        *_layer_scale(layer),
        *norm(f"{_BLOCK}.attention_norm", f"{layer}.norm1"),
        *norm(f"{_BLOCK}.feed_forward_norm", f"{layer}.norm2"),
        *norm("last_norm", "layernorm"),
        *_classifier(config),
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
    layer = "layer.{layer}"
    heads = rotary_halves(config.heads)
    attention = f"{layer}.attention"
    rules = _embedding(config, "embeddings.patch_embeddings", "embeddings.cls_token", "", ones=1)
    if config.registers:
        rules.append(Rule("trunk.registers", (Part("embeddings.register_tokens", leading(1)),)))
    layouts = {"q_proj": heads, "k_proj": heads, "v_proj": LINEAR}
    kernels = tuple(Part(f"{attention}.{name}.weight", layout) for name, layout in layouts.items())
    rules.append(Rule(f"{_BLOCK}.attention.qkv.kernel", kernels))
    if config.qkv_bias:
        biases = tuple(Part(f"{attention}.{name}.bias", layout, absent=0.0) for name, layout in layouts.items())
        rules.append(Rule(f"{_BLOCK}.attention.qkv.bias", biases))
    if config.feed_forward == "swiglu":
        gated = (f"{layer}.mlp.gate_proj", f"{layer}.mlp.up_proj")
        rules += linear(f"{_BLOCK}.feed_forward.gate_and_value", *gated, bias=config.feed_forward_bias)
        rules += linear(f"{_BLOCK}.feed_forward.out", f"{layer}.mlp.down_proj", bias=config.feed_forward_bias)
    else:
        rules += _feed_forward(config, _BLOCK, f"{layer}.mlp.up_proj", f"{layer}.mlp.down_proj")
    rules += [
        *linear(f"{_BLOCK}.attention.out", f"{attention}.o_proj", bias=config.out_bias),
        *_layer_scale(layer),
        *norm(f"{_BLOCK}.attention_norm", f"{layer}.norm1"),
        *norm(f"{_BLOCK}.feed_forward_norm", f"{layer}.norm2"),
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
    layer = "encoder.layer.{layer}"
    rules = [
        *_embedding(
            config,
            "embeddings.patch_embeddings.projection",
            "embeddings.cls_token",
            "embeddings.position_embeddings",
            ones=1,
        ),
        *_vit_attention(config, layer),
        *_feed_forward(config, _BLOCK, f"{layer}.intermediate.dense", f"{layer}.output.dense"),
        *norm(f"{_BLOCK}.attention_norm", f"{layer}.layernorm_before"),
        *norm(f"{_BLOCK}.feed_forward_norm", f"{layer}.layernorm_after"),
        *norm("last_norm", "layernorm"),
    ]
    return NameMap(tuple(rules), anchor="embeddings.cls_token", prefixes=("", "vit."), ignored=r"^decoder\.")


def contrastive_blocks(block: str, layer: str) -> list[Rule]:
    """The blocks of CLIP and SigLIP, of images and of text alike."""
    names = [f"{layer}.self_attn.{name}_proj" for name in "qkv"]
    return [
        *linear(f"{block}.attention.qkv", *names),
        *linear(f"{block}.attention.out", f"{layer}.self_attn.out_proj"),
        *linear(f"{block}.feed_forward.hidden", f"{layer}.mlp.fc1"),
        *linear(f"{block}.feed_forward.out", f"{layer}.mlp.fc2"),
        *norm(f"{block}.attention_norm", f"{layer}.layer_norm1"),
        *norm(f"{block}.feed_forward_norm", f"{layer}.layer_norm2"),
    ]


_OTHER_TOWER = r"^text_model\.|^text_projection\.|^logit_(scale|bias)$|position_ids$"


def siglip(config: ViTConfig) -> NameMap:
    """SigLIP's and SigLIP2's tower for images, attention pooling included."""
    head = "head"
    rules = [
        *_embedding(config, "embeddings.patch_embedding", "", "embeddings.position_embedding.weight", ones=0),
        *contrastive_blocks(_BLOCK, "encoder.layers.{layer}"),
        *norm("last_norm", "post_layernorm"),
    ]
    if config.pooling == "attention":
        rules += [
            Rule("attention_pool.probe", (Part(f"{head}.probe", leading(1)),)),
            Rule("attention_pool.joint_kernel", (Part(f"{head}.attention.in_proj_weight", LINEAR),)),
            Rule("attention_pool.joint_bias", (Part(f"{head}.attention.in_proj_bias"),)),
            *linear("attention_pool.out", f"{head}.attention.out_proj"),
            *norm("attention_pool.norm", f"{head}.layernorm"),
            *linear("attention_pool.feed_forward.hidden", f"{head}.mlp.fc1"),
            *linear("attention_pool.feed_forward.out", f"{head}.mlp.fc2"),
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
        *_embedding(
            config,
            "embeddings.patch_embedding",
            "embeddings.class_embedding",
            "embeddings.position_embedding.weight",
            ones=-1,
        ),
        *contrastive_blocks(_BLOCK, "encoder.layers.{layer}"),
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
