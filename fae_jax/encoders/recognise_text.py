"""A published `config.json` → the text tower it describes and the map of its names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fae_jax.encoders.recognise import (
    Family,
    Recognised,
    activation,
    contrastive_blocks,
    projection,
    recognise,
    sizes,
    table,
)
from fae_jax.encoders.text import BertConfig, BertEncoder, T5Config, T5Encoder, TextConfig, TextTower
from fae_jax.weights.mapping import NameMap, Part, Rule, linear, norm

_OTHER_TOWER = r"^vision_model\.|^visual_projection\.|^logit_(scale|bias)$|position_ids$"


def _tower_map(config: TextConfig, head: str) -> NameMap:
    rules = [
        Rule("token_table", (Part("embeddings.token_embedding.weight"),)),
        Rule("position_table", (Part("embeddings.position_embedding.weight"),)),
        *contrastive_blocks("blocks.block."),
        *norm("last_norm", "final_layer_norm"),
        *(linear("projection_head", head, bias=config.pooling == "last") if config.projection else ()),
    ]
    return NameMap(tuple(rules), prefixes=("text_model.", ""), ignored=_OTHER_TOWER)


def _clip(fields: Mapping[str, Any]) -> tuple[TextConfig, NameMap]:
    text = fields.get("text_config", {}) if fields["model_type"] == "clip" else fields
    end = text.get("eos_token_id", 49407)
    config = TextConfig(
        **sizes(text, width=512, heads=8, hidden=2048, epsilon=1e-5),
        vocabulary=text.get("vocab_size", 49408),
        length=text.get("max_position_embeddings", 77),
        feed_forward=activation(text, "quick_gelu"),
        pooling="end",
        end_token=None if end == 2 else end,
        projection=projection(fields),
    )
    return config, _tower_map(config, "/text_projection")


def _siglip(fields: Mapping[str, Any]) -> tuple[TextConfig, NameMap]:
    text = fields.get("text_config", {}) if fields["model_type"] == "siglip" else fields
    shape = sizes(text)
    config = TextConfig(
        **shape,
        vocabulary=text.get("vocab_size", 32000),
        length=text.get("max_position_embeddings", 64),
        feed_forward=activation(text, "gelu_pytorch_tanh"),
        pooling="last",
        projection=text.get("projection_size") or shape["width"],
    )
    return config, _tower_map(config, "head")


def _t5(fields: Mapping[str, Any]) -> tuple[T5Config, NameMap]:
    kinds = {"relu": "relu", "gated-gelu": "geglu_tanh"}
    asked = fields.get("feed_forward_proj", "relu")
    if asked not in kinds:
        raise ValueError(f"config.json asks for feed_forward_proj {asked!r}; known are {', '.join(kinds)}")
    config = T5Config(
        vocabulary=fields.get("vocab_size", 32128),
        width=fields.get("d_model", 512),
        depth=fields.get("num_layers", 6),
        heads=fields.get("num_heads", 8),
        head_width=fields.get("d_kv", 64),
        hidden=fields.get("d_ff", 2048),
        feed_forward=kinds[asked],
        norm_epsilon=fields.get("layer_norm_epsilon", 1e-6),
        buckets=fields.get("relative_attention_num_buckets", 32),
        distance=fields.get("relative_attention_max_distance", 128),
    )
    hidden = {"feed_forward.gate_and_value": "1.DenseReluDense.wi_0 1.DenseReluDense.wi_1"}
    if config.feed_forward == "relu":
        hidden = {"feed_forward.hidden": "1.DenseReluDense.wi"}
    block = {
        "attention.qkv": "0.SelfAttention.q 0.SelfAttention.k 0.SelfAttention.v",
        "attention.out": "0.SelfAttention.o",
        **hidden,
        "feed_forward.out": "1.DenseReluDense.wo",
        "attention_norm": "0.layer_norm",
        "feed_forward_norm": "1.layer_norm",
    }
    rules = [
        Rule("token_table", (Part("shared.weight"),)),
        Rule("relative_bias", (Part("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"),)),
        *table("blocks.block.", "encoder.block.{layer}.layer.", block, bias=False),
        *norm("last_norm", "encoder.final_layer_norm", bias=False),
    ]
    return config, NameMap(tuple(rules), ignored=r"^decoder\.|^lm_head\.|^encoder\.embed_tokens\.weight$")


def _bert(fields: Mapping[str, Any]) -> tuple[BertConfig, NameMap]:
    config = BertConfig(
        **sizes(fields, epsilon=1e-12),
        vocabulary=fields.get("vocab_size", 30522),
        length=fields.get("max_position_embeddings", 512),
        segments=fields.get("type_vocab_size", 2),
        feed_forward=activation(fields, "gelu"),
    )
    block = {
        "attention.qkv": "attention.self.query attention.self.key attention.self.value",
        "attention.out": "attention.output.dense",
        "attention_norm": "attention.output.LayerNorm",
        "feed_forward.hidden": "intermediate.dense",
        "feed_forward.out": "output.dense",
        "feed_forward_norm": "output.LayerNorm",
    }
    rules = [
        Rule("token_table", (Part("embeddings.word_embeddings.weight"),)),
        Rule("position_table", (Part("embeddings.position_embeddings.weight"),)),
        Rule("segment_table", (Part("embeddings.token_type_embeddings.weight"),)),
        *norm("first_norm", "embeddings.LayerNorm"),
        *table("blocks.block.", "encoder.layer.{layer}.", block),
    ]
    return config, NameMap(tuple(rules), prefixes=("", "bert."), ignored=r"position_ids$|(^|\.)pooler\.|^cls\.")


FAMILIES: dict[str, Family] = {
    "clip": ("clip", TextTower, _clip),
    "clip_text_model": ("clip", TextTower, _clip),
    "siglip": ("siglip", TextTower, _siglip),
    "siglip_text_model": ("siglip", TextTower, _siglip),
    "t5": ("t5", T5Encoder, _t5),
    "bert": ("bert", BertEncoder, _bert),
}


def recognise_text(fields: Mapping[str, Any]) -> Recognised:
    """`recognise` for the text tower that a `config.json` describes."""
    return recognise(fields, FAMILIES, "text towers")
