"""Decoders that RAE's authors released (arXiv 2510.11690), as diffusers' `AutoencoderRAE`, as our pixel decoder.

Theirs reads tokens n as the encoder's last norm leaves them without its scale w and offset b, n = (x − b) / w, and
puts out pixels q of the encoder's own normalisation, p = q s + m in [0, 1]. Ours reads features in its own feature
space, f = (x − μ) / σ, and puts out 2 p − 1. Both changes are affine and go into its first and last linear:

    W n + c = W (σ/w) f + (c + W (μ − b) / w)                                                     (1)
    2 (q s + m) − 1 = (2 s) q + (2 m − 1)                                                         (2)

Their statistics of latents are undone before the decoder, and so have no part in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from fae_jax.weights import mapping
from fae_jax.weights.mapping import NameMap, Part, Rule, leading, linear, norm
from fae_jax.weights.tensors import Tensors

OPTIONS = {"feed_forward": "gelu", "class_token": True, "positions": "fixed", "norm_epsilon": 1e-12}
SIZES = {
    "width": "decoder_hidden_size",
    "depth": "decoder_num_hidden_layers",
    "heads": "decoder_num_attention_heads",
    "hidden": "decoder_intermediate_size",
}
# encoder_type → how the names of its encoders begin and end here
ENCODERS = {"dinov2": ("dinov2_", "_reg"), "siglip2": ("siglip2_", ""), "mae": ("mae_", "")}


class Released(NamedTuple):
    """What a released file's config.json says.

    Attributes:
      source: what to call it.
      sections: the fields of `pixel_decoder` that it needs.
      grid, patch: rows and columns of tokens, and the side of the square each paints.
      features: channels of a token.
      encoder: a key of `ENCODERS`.
      mean, std: of its pixels, m and s.
    """

    source: str
    section: dict[str, Any]
    grid: tuple[int, int]
    patch: int
    features: int
    encoder: str
    mean: np.ndarray
    std: np.ndarray


def describe(source: str, fields: Mapping[str, Any], tensors: Tensors) -> Released:
    """Reads a config.json.

    Raises:
      ValueError: it is of another network, or lacks a field.
    """
    kind = fields.get("_class_name")
    if kind != "AutoencoderRAE":
        raise ValueError(f"{source} describes {kind or 'no network'}, not diffusers' AutoencoderRAE")
    try:
        section = {**{ours: fields[theirs] for ours, theirs in SIZES.items()}, **OPTIONS}
        side = fields["encoder_input_size"] // fields["encoder_patch_size"]
        patch, features, encoder = (fields[name] for name in ("patch_size", "encoder_hidden_size", "encoder_type"))
        mean, std = (tensors.read(f"encoder_{name}").reshape(-1) for name in ("mean", "std"))
    except KeyError as error:
        raise ValueError(f"{source} has no {error.args[0]}; fetch it again, with its config.json") from None
    return Released(source, section, (side, side), patch, features, encoder, mean, std)


def read_decoder(released: Released, tensors: Tensors, like: Mapping[str, Any]) -> dict[str, Any]:
    """The decoder's parameters as they are in the file.

    Args:
      like: shapes of ours.

    Raises:
      ValueError: it is another network; see `fae_jax.weights.mapping.load`.
    """
    ours, theirs = "blocks.block", "decoder_layers.{layer}"
    rules = [
        *linear("embed", "decoder_embed"),
        Rule("class_token", (Part("trainable_cls_token", leading(1)),)),
        *linear(f"{ours}.attention.qkv", *(f"{theirs}.attention.to_{name}" for name in "qkv")),
        *linear(f"{ours}.attention.out", f"{theirs}.attention.to_out.0"),
        *linear(f"{ours}.feed_forward.hidden", f"{theirs}.intermediate.dense"),
        *linear(f"{ours}.feed_forward.out", f"{theirs}.output.dense"),
        *norm(f"{ours}.attention_norm", f"{theirs}.layernorm_before"),
        *norm(f"{ours}.feed_forward_norm", f"{theirs}.layernorm_after"),
        *norm("last_norm", "decoder_norm"),
        *linear("to_pixels", "decoder_pred"),
    ]
    names = NameMap(tuple(rules), ("decoder.",), r"^(?!decoder\.)")
    return mapping.load(released.source, names, tensors, like)


def folded(
    params: Mapping[str, Any],
    released: Released,
    *,
    norm: Mapping[str, Float[np.ndarray, " d"]],
    mean: Float[np.ndarray, " d"],
    std: Float[np.ndarray, " d"],
) -> dict[str, Any]:
    """The parameters after equations (1) and (2), computed in float64.

    Args:
      norm: scale w and offset b of the encoder's last norm.
      mean, std: μ and σ; 0 and 1 where features are raw.

    Raises:
      ValueError: a scale is 0, so that n cannot be told from x.
    """
    scale, offset, kernel, bias, last, last_bias = (
        np.asarray(jax.device_get(leaf), np.float64)
        for leaf in (norm["scale"], norm["bias"], *_linear(params["embed"]), *_linear(params["to_pixels"]))
    )
    if not scale.all():
        raise ValueError(f"{released.source}: a scale of the encoder's last norm is 0, and cannot be divided by")
    pixel_std, pixel_mean = (
        np.tile(each.astype(np.float64), last.shape[-1] // 3) for each in (released.std, released.mean)
    )
    embed = {"kernel": kernel * (std / scale)[:, None], "bias": bias + (mean - offset) / scale @ kernel}
    to_pixels = {"kernel": last * 2 * pixel_std, "bias": 2 * (last_bias * pixel_std + pixel_mean) - 1}
    changed = jax.tree.map(lambda leaf: leaf.astype(np.float32), {"embed": embed, "to_pixels": to_pixels})
    return {**params, **changed}


def _linear(params: Mapping[str, Any]) -> tuple[Any, Any]:
    return params["kernel"], params["bias"]
