"""The MMDiT as diffusers' `SD3Transformer2DModel`, and back: the same weights, transposed and under its names.

It is the network of `OPTIONS`. Where its last block modulates the text, and at its end, the file has (scale, shift)
for our (shift, scale). Its times are 1000 t, its latents (b, c, y, x); it knows no mask of texts, so that it is to be
given the tokens there are, or another attention processor (docs/pytorch/pipeline_text.py).
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fae_jax.generators.flow_matching import FlowMatching
from fae_jax.generators.networks.mmdit import MMDiT
from fae_jax.nn.embeddings import sincos_table
from fae_jax.weights import flatten, open_tensors
from fae_jax.weights.mapping import KEEP, LINEAR, Layout, NameMap, Part, Rule, convolution, linear, load, norm, store

OPTIONS = {
    "norm": "layer",
    "feed_forward": "gelu_tanh",
    "feed_forward_bias": True,
    "rotary": False,
    "conditioning": "pooled",
    "time_scale": 1000.0,
    "middle": 0,
}
TABLE = "pos_embed.pos_embed"
# Theirs of a stream: what makes queries, keys and values; the projection; norms of queries and keys; how others end.
IMAGE = (("to_q", "to_k", "to_v"), "to_out.0", ("norm_q", "norm_k"), "")
TEXT = (
    ("add_q_proj", "add_k_proj", "add_v_proj"),
    "to_add_out",
    ("norm_added_q", "norm_added_k"),
    "_context",
)


def _swapped(layout: Layout) -> Layout:
    """The layout of a weight or bias whose outputs are two halves: there the second one first."""

    def read(array: np.ndarray) -> np.ndarray:
        kept = layout.read(array)
        return np.roll(kept, kept.shape[-1] // 2, axis=-1)

    def write(array: np.ndarray) -> np.ndarray:
        return layout.write(np.roll(array, array.shape[-1] // 2, axis=-1))

    return Layout(layout.shape_in_file, read, write)


def differing(network: MMDiT) -> list[str]:
    """Fields of `generator.flow_matching.mmdit` that would have to be set for the network to be SD3's."""
    needed = {**OPTIONS, "hidden": 4 * network.width}
    return [f"{name}={value}" for name, value in needed.items() if getattr(network, name) != value]


def name_map(network: MMDiT, channels: int) -> NameMap:
    """How the leaves of an MMDiT with SD3's options are named in the file."""
    time = "time_text_embed"
    rules = [
        *linear("embed", "pos_embed.proj", layout=convolution(1, channels)),
        *linear("text_embed", "context_embedder"),
        *linear("time.hidden", f"{time}.timestep_embedder.linear_1"),
        *linear("time.out", f"{time}.timestep_embedder.linear_2"),
        *linear("pooled_hidden", f"{time}.text_embedder.linear_1"),
        *linear("pooled_out", f"{time}.text_embedder.linear_2"),
        *_swapped_linear("last_modulation", "norm_out.linear"),
        *linear("to_velocity", "proj_out"),
    ]
    for ours, theirs, last in (
        ("blocks.block", "transformer_blocks.{layer}", False),
        ("last_block", f"transformer_blocks.{network.depth - 1}", True),
    ):
        rules += _stream(f"{ours}.image", theirs, IMAGE, network.qk_norm)
        rules += _stream(f"{ours}.text", theirs, TEXT, network.qk_norm, ends=last)
    return NameMap(tuple(rules), ignored=rf"^{TABLE}$")


def _stream(ours: str, theirs: str, names: tuple[Any, ...], qk_norm: bool, ends: bool = False) -> list[Rule]:
    """Rules of a block's image or text; a text that `ends` here feeds the attention alone."""
    joint, out, norms, suffix = names
    rules = linear(f"{ours}_qkv", *(f"{theirs}.attn.{name}" for name in joint))
    for leaf, name in zip(("query", "key"), norms, strict=True) if qk_norm else ():
        rules += norm(f"{ours}_{leaf}_norm", f"{theirs}.attn.{name}", bias=False)
    modulation = f"{theirs}.norm1{suffix}.linear"
    if ends:
        return [*rules, *_swapped_linear(f"{ours}_modulation", modulation)]
    return [
        *rules,
        *linear(f"{ours}_modulation", modulation),
        *linear(f"{ours}_out", f"{theirs}.attn.{out}"),
        *linear(f"{ours}_feed_forward.hidden", f"{theirs}.ff{suffix}.net.0.proj"),
        *linear(f"{ours}_feed_forward.out", f"{theirs}.ff{suffix}.net.2"),
    ]


def _swapped_linear(target: str, name: str) -> list[Rule]:
    return [
        Rule(f"{target}.kernel", (Part(f"{name}.weight", _swapped(LINEAR)),)),
        Rule(f"{target}.bias", (Part(f"{name}.bias", _swapped(KEEP)),)),
    ]


def to_sd3(network: MMDiT, params: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The fields of diffusers' `config.json`, and the tensors.

    Raises:
      ValueError: the network is another one; says what to set.
    """
    wrong, (rows, columns) = differing(network), network.grid
    if wrong:
        raise ValueError(f"SD3's transformer is another network: train with {', '.join(wrong)}")
    if rows != columns:
        raise ValueError(f"SD3's transformer has a square grid, and this is one of {rows} by {columns}")
    shapes = {name: leaf.shape for name, leaf in flatten(params).items()}
    channels = shapes["embed.kernel"][0]
    fields = {
        "sample_size": rows,
        "patch_size": 1,
        "in_channels": channels,
        "num_layers": network.depth,
        "attention_head_dim": network.width // network.heads,
        "num_attention_heads": network.heads,
        "joint_attention_dim": shapes["text_embed.kernel"][0],
        "caption_projection_dim": network.width,
        "pooled_projection_dim": shapes["pooled_hidden.kernel"][0],
        "out_channels": channels,
        "pos_embed_max_size": rows,
        "dual_attention_layers": [],
        "qk_norm": "rms_norm" if network.qk_norm else None,
    }
    table = np.asarray(sincos_table(network.width, network.grid), np.float32)[None]
    return fields, {**store(name_map(network, channels), params), TABLE: table}


def read_sd3(path: str | os.PathLike[str], generator: FlowMatching) -> Any:
    """Parameters for `generator`, whose network is an MMDiT, from the folder of an `SD3Transformer2DModel`.

    Raises:
      FileNotFoundError: it is not there.
      ValueError: it is a pickle, or of another network: all that is missing, extra or of another shape is listed.
    """
    network: Any = generator.network
    wrong, source = differing(network), str(path)
    if wrong:
        raise ValueError(f"{source} is SD3's network: in generator.flow_matching.mmdit set {', '.join(wrong)}")
    tensors = open_tensors(path)
    params = load(
        source, name_map(network, generator.shape[1]), tensors, jax.eval_shape(generator.init, jax.random.key(0))
    )
    beside = Path(path) / "config.json"
    heads = json.loads(beside.read_text()).get("num_attention_heads") if beside.is_file() else network.heads
    if heads != network.heads:
        raise ValueError(f"{source} has {heads} attention heads: set generator.flow_matching.mmdit.heads={heads}")
    ours = np.asarray(sincos_table(network.width, network.grid))
    theirs = tensors.read(TABLE).astype(np.float32) if TABLE in tensors else ours
    if theirs.size != ours.size or not np.allclose(theirs.reshape(ours.shape), ours, atol=1e-2):
        raise ValueError(f"{source}: {TABLE} is not the table of a grid of {network.grid[0]} by {network.grid[1]}")
    return params
