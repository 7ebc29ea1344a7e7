"""Published text towers, frozen: every name of `published.TEXT_TOWERS` answers to `create_text`."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fae_jax.encoders.captions import load_tokenizer
from fae_jax.encoders.pretrained import find_files
from fae_jax.encoders.published import TEXT_TOWERS, Published
from fae_jax.encoders.recognise_text import recognise_text
from fae_jax.encoders.registry import TextEncoder, register_text
from fae_jax.encoders.text import T5Config, TextOutput

LENGTHS = {"t5": 77, "bert": 128}  # tokens of a caption where nothing else is asked for; others' limits are theirs


def build_text(
    name: str,
    entry: Published | None,
    *,
    weights: str | None,
    length: int | None = None,
    tokenizer: str | None = None,
    dtype: str = "float32",
    parameter_dtype: str = "float32",
    scan: bool = True,
    revision: str | None = None,
    place: Callable[[Any], Any] | None = None,
    skip: int = 0,
    abstract: bool = False,
) -> TextEncoder:
    """Reads a published text tower.

    Args:
      weights, dtype, parameter_dtype, scan, revision, place: as in `fae_jax.encoders.pretrained.build`.
      length: tokens a caption may have; None for the tower's own limit, or where that is none or long for `LENGTHS`.
      skip: the last blocks to leave out; the last norm, where there is one, stays.
      abstract: read neither weights nor tokenizer: the parameters are shapes, the hash is empty.
      tokenizer: a file or folder; None for what lies beside the weights.

    Raises:
      ValueError: the weights do not fit, `length` is beyond the tower's limit, or `skip` leaves no block.
      FileNotFoundError, OSError: see `find_files`; there is no tokenizer.
    """
    files = None if abstract and entry is not None and not weights else find_files(weights, entry, revision=revision)
    text = recognise_text((files or entry).fields)  # type: ignore[union-attr]
    if entry is not None and recognise_text(entry.fields).config != text.config:
        raise ValueError(f"the weights are not those of {name!r}: {text.config} instead of what its name stands for")
    config = text.config
    limit = None if isinstance(config, T5Config) else config.length
    length = length or LENGTHS.get(text.family) or limit
    assert length is not None, "a tower without a limit is in LENGTHS"
    if limit is not None and length > limit:
        raise ValueError(f"length={length} is beyond what the text tower {name!r} takes: {limit} tokens")
    if not 0 <= skip < config.depth:
        raise ValueError(f"skip={skip} leaves no block of the text tower {name!r}, which has {config.depth}")
    module = text.module(dtype=jnp.dtype(dtype), scan=scan)
    module = module.clone(config=dataclasses.replace(config, depth=config.depth - skip))

    def apply(params: Any, tokens: jax.Array, mask: jax.Array | None = None) -> TextOutput:
        blocks = jax.tree.map(lambda leaf: leaf[: config.depth - skip], params["blocks"])
        params = {**params, "blocks": blocks}
        # CLIP and SigLIP were trained on padded captions without a mask; the others mask padding
        return module.apply({"params": params}, tokens, mask if text.family in LENGTHS else None)

    tower = TextEncoder(
        name=name,
        apply=apply,
        params=jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.dtype(parameter_dtype)), text.shapes()),
        tokenize=_no_tokenizer,
        length=length,
        width=config.width,
        weights_hash="",
    )
    if abstract or files is None:
        return tower
    scale, bias = (
        float(files.tensors.read(name).astype(np.float64).reshape(())) if name in files.tensors else None
        for name in ("logit_scale", "logit_bias")
    )
    return dataclasses.replace(
        tower,
        params=files.params(text, parameter_dtype, place),
        tokenize=load_tokenizer(tokenizer or files.folder, text.family, length=length),
        weights_hash=files.tensors.hash(),
        scale=None if scale is None else math.exp(scale),
        bias=bias,
    )


def _no_tokenizer(captions: Any) -> Any:
    raise ValueError("this text tower was made without its files: it reads no captions")


for _name, _entry in TEXT_TOWERS.items():
    register_text(_name, functools.partial(build_text, _name, _entry))
register_text("pretrained", functools.partial(build_text, "pretrained", None))
