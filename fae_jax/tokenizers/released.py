"""`pixels.init_from`: a released decoder in the place of a fresh one; with `pixels.steps=0` it is used as it is."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from fae_jax.autoencoder.released import ENCODERS, Released, describe, folded, read_decoder
from fae_jax.encoders.pretrained import find_anything
from fae_jax.parallel.hosts import fetch


def given(parts: Any) -> dict[str, Any]:
    """The parameters of `pixels.init_from`, where one is named, for this experiment's features.

    Args:
      parts: `fae_jax.parts.Parts`, of FAE as the tokenizer.

    Raises:
      ValueError: it is another network, of another encoder or grid; it says what to set.
      FileNotFoundError, OSError: it is not there, see `fae_jax.encoders.pretrained.find_files`.
    """
    path, tokenizer = parts.config.pixels.init_from, parts.tokenizer
    if not path:
        return {}
    files = find_anything(path)
    released = describe(files.source, files.fields, files.tensors)
    _check(released, parts.config, tokenizer)
    params = read_decoder(released, files.tensors, tokenizer.shapes("pixel_decoder"))
    norm, space = tokenizer.encoder.params["last_norm"], tokenizer.space
    if isinstance(norm["scale"], jax.ShapeDtypeStruct):  # an outline: all has been checked that can be
        return {"pixel_decoder": params}
    mean, std = (space.mean, space.std) if space.standardise else (np.zeros_like(space.mean), np.ones_like(space.std))
    return {"pixel_decoder": folded(params, released, norm=fetch(norm), mean=mean, std=std)}


def _check(released: Released, config: Any, tokenizer: Any) -> None:
    field, own = f"field pixels.init_from={config.pixels.init_from}", config.pixel_decoder
    wrong = [f"{name}={value}" for name, value in released.section.items() if getattr(own, name) != value]
    if wrong:
        raise ValueError(f"{field} is another network: in pixel_decoder set {', '.join(wrong)}")
    begin, end = ENCODERS.get(released.encoder, ("no", ""))
    name = config.encoder.name
    if name != "pretrained" and not (name.startswith(begin) and name.endswith(end)):
        theirs = f"{released.encoder} ({begin}…{end})"
        raise ValueError(f"{field} reads features of {theirs}, and this experiment's encoder is {name!r}")
    if config.encoder.layers or "last_norm" not in tokenizer.encoder.params:
        raise ValueError(f"{field} reads a ViT's last norm: leave encoder.layers at (), and name such an encoder")
    shapes = [
        (*each.grid, width, patch)
        for each, width, patch in (
            (released, released.features, released.patch),
            (tokenizer, tokenizer.width, tokenizer.pixel_decoder.patch),
        )
    ]
    if shapes[0] != shapes[1]:
        rows, columns, width, patch = shapes[0]
        raise ValueError(
            f"{field} paints {rows}×{columns} tokens of {width} channels as squares of {patch} pixels, and this "
            f"experiment has {shapes[1][0]}×{shapes[1][1]} of {shapes[1][2]}, each {shapes[1][3]} pixels: it cannot "
            "be started from"
        )
