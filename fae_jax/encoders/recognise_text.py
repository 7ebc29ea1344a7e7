"""A published `config.json` → the text tower it describes and the map of its names."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from fae_jax.encoders.name_maps import contrastive_blocks, table
from fae_jax.encoders.recognise import activation
from fae_jax.encoders.text import T5Config, T5Encoder, TextConfig, TextTower
from fae_jax.weights.mapping import NameMap, Part, Rule, linear, norm

_OTHER_TOWER = r"^vision_model\.|^visual_projection\.|^logit_(scale|bias)$|position_ids$"


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecognisedText:
    """What a `config.json` says of text: the family's name, the network and where its file keeps the weights."""

    family: str
    config: TextConfig | T5Config
    names: NameMap

    def module(self, **fields: Any) -> TextTower | T5Encoder:
        """The network itself."""
        return (T5Encoder if isinstance(self.config, T5Config) else TextTower)(self.config, **fields)


def _tower_map(config: TextConfig, projection: str, *, absolute: bool) -> NameMap:
    rules = [
        Rule("token_table", (Part("embeddings.token_embedding.weight"),)),
        Rule("position_table", (Part("embeddings.position_embedding.weight"),)),
        *contrastive_blocks("blocks.block."),
        *norm("last_norm", "final_layer_norm"),
    ]
    if config.projection:
        rules += linear("projection_head", projection, bias=config.pooling == "last")
    return NameMap(
        tuple(rules),
        anchor="embeddings.token_embedding.weight",
        prefixes=("text_model.", ""),
        ignored=_OTHER_TOWER,
        absolute=(f"{projection}.",) if absolute else (),
    )


def _clip(fields: Mapping[str, Any]) -> tuple[TextConfig, NameMap]:
    both = fields["model_type"] == "clip"
    text = fields.get("text_config", {}) if both else fields
    projects = both or any(name.endswith("WithProjection") for name in fields.get("architectures") or ())
    end = text.get("eos_token_id", 49407)
    config = TextConfig(
        vocabulary=text.get("vocab_size", 49408),
        length=text.get("max_position_embeddings", 77),
        width=text.get("hidden_size", 512),
        depth=text.get("num_hidden_layers", 12),
        heads=text.get("num_attention_heads", 8),
        hidden=text.get("intermediate_size", 2048),
        feed_forward=activation(text, "quick_gelu"),
        norm_epsilon=text.get("layer_norm_eps", 1e-5),
        pooling="end",
        end_token=None if end == 2 else end,
        projection=fields.get("projection_dim", 512) if projects else 0,
    )
    return config, _tower_map(config, "text_projection", absolute=True)


def _siglip(fields: Mapping[str, Any]) -> tuple[TextConfig, NameMap]:
    text = fields.get("text_config", {}) if fields["model_type"] == "siglip" else fields
    width = text.get("hidden_size", 768)
    config = TextConfig(
        vocabulary=text.get("vocab_size", 32000),
        length=text.get("max_position_embeddings", 64),
        width=width,
        depth=text.get("num_hidden_layers", 12),
        heads=text.get("num_attention_heads", 12),
        hidden=text.get("intermediate_size", 3072),
        feed_forward=activation(text, "gelu_pytorch_tanh"),
        norm_epsilon=text.get("layer_norm_eps", 1e-6),
        pooling="last",
        projection=text.get("projection_size") or width,
    )
    return config, _tower_map(config, "head", absolute=False)


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
    ignored = r"^decoder\.|^lm_head\.|^encoder\.embed_tokens\.weight$"
    return config, NameMap(tuple(rules), anchor="shared.weight", ignored=ignored)


FAMILIES: dict[str, tuple[str, Callable[..., Any]]] = {
    "clip": ("clip", _clip),
    "clip_text_model": ("clip", _clip),
    "siglip": ("siglip", _siglip),
    "siglip_text_model": ("siglip", _siglip),
    "t5": ("t5", _t5),
}


def recognise_text(fields: Mapping[str, Any]) -> RecognisedText:
    """Reads the contents of a `config.json`.

    Raises:
      ValueError: the model type has no text tower that is known here.
    """
    kind = fields.get("model_type")
    if kind not in FAMILIES:
        raise ValueError(
            f"config.json describes a {kind!r}; text towers of these types are known: {', '.join(FAMILIES)}"
        )
    family, read = FAMILIES[kind]
    config, names = read(fields)
    return RecognisedText(family=family, config=config, names=names)
