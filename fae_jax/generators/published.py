"""Checkpoints of SiT (github.com/willisma/SiT) and LightningDiT (github.com/hustvl/LightningDiT) as our DiT.

Theirs go from noise at t' = 0 to data at t' = 1, with the velocity v' = z − ε:

    v(z, t) = −v'(z, 1 − t)                                                   (1)

That goes into the weights, so that what is made is a DiT like any other. The sign goes into the last linear. The
first linear of the time embedding reads cos t' f_i and sin t' f_i, which by t' = 1 − t are

    cos t' f = cos f cos t f + sin f sin t f,   sin t' f = sin f cos t f − cos f sin t f      (2)

so that its rows A_i and B_i become cos f_i A_i + sin f_i B_i and sin f_i A_i − cos f_i B_i.

A token is a patch of p × p × c values of their latent (c, y, x), in the order (y, x, c). A learned σ, the second half
of the output's channels, is left out. LightningDiT without shifts is one whose shifts are zero.
"""

from __future__ import annotations

import math
import os
import re
from typing import Any, NamedTuple

import jax
import numpy as np

from fae_jax.conditions.label import ClassLabel
from fae_jax.generators.flow_matching import FlowMatching
from fae_jax.generators.networks.dit import SIZES, DiT
from fae_jax.nn.embeddings import rotary_table, sincos_table
from fae_jax.weights import open_tensors
from fae_jax.weights.mapping import LINEAR, Layout, NameMap, Part, Rule, convolution, linear, load, norm
from fae_jax.weights.tensors import Tensors

FIRST = "x_embedder.proj.weight"
HEADS = {width: heads for width, _, heads in SIZES.values()}  # their models have, by width
IN_FILE = "blocks.{layer}"


class Published(NamedTuple):
    """A published generator.

    Attributes:
      generator: over latents of tokens (b, n, p·p·c); its network is a `DiT`.
      params: its parameters.
      patch: p.
    """

    generator: FlowMatching
    params: Any
    patch: int


def _reflected(array: np.ndarray) -> np.ndarray:
    """Equation (2), of a weight (d, 256) as it lies in the file; (256, d)."""
    of_cosine, of_sine = np.split(array.T.astype(np.float64), 2)
    rates = np.exp(-np.log(10000.0) * np.arange(len(of_cosine)) / len(of_cosine))[:, None]
    return np.concatenate(
        [
            np.cos(rates) * of_cosine + np.sin(rates) * of_sine,
            np.sin(rates) * of_cosine - np.cos(rates) * of_sine,
        ]
    )


def _velocity(values: int, channels: int, with_sigma: bool) -> Layout:
    """The last linear, weight or bias: σ's outputs left out, and the sign of equation (1)."""
    outputs = values * (2 if with_sigma else 1)

    def read(array: np.ndarray) -> np.ndarray:
        kept = array.reshape(values // channels, -1, *array.shape[1:])[:, :channels]
        return -kept.reshape(values, *array.shape[1:]).T

    return Layout(lambda shape: (outputs, *shape[:-1]), read)


def _without_shifts() -> Layout:
    """Scale, gate, scale, gate in the file; shift, scale, gate, twice, here."""

    def read(array: np.ndarray) -> np.ndarray:
        first, second = np.split(array.T, 2, axis=-1)
        zero = np.zeros_like(first[..., : first.shape[-1] // 2])
        return np.concatenate([zero, first, zero, second], axis=-1)

    return Layout(lambda shape: (shape[-1] * 4 // 6, *shape[:-1]), read)


def read_published(path: str | os.PathLike[str], heads: int = 0) -> Published:
    """A checkpoint that `fae weights convert` made a safetensors file of (of one with an EMA, the EMA).

    Args:
      path: a file or a folder.
      heads: attention heads; 0 for what the file or the models of that width say.

    Raises:
      FileNotFoundError: it is not there.
      ValueError: it is a pickle (says how to convert it), or not a checkpoint of theirs: all that is missing, extra
        or of another shape is listed.
    """
    tensors, source = open_tensors(path), str(path)
    prefix = "module." if f"module.{FIRST}" in tensors else ""
    shapes = {name.removeprefix(prefix): tensors[name].shape for name in tensors}
    needed = (FIRST, "pos_embed", "y_embedder.embedding_table.weight", "final_layer.linear.weight")
    absent = [name for name in needed if name not in shapes]
    layers = {int(match[1]) for name in shapes if (match := re.match(r"blocks\.(\d+)\.", name))}
    if absent or not layers:
        raise ValueError(
            f"{source} is no checkpoint of SiT or LightningDiT: it has no {', '.join(absent) or 'blocks.0.…'}"
        )
    width, channels, patch, _ = shapes[FIRST]
    side = math.isqrt(shapes["pos_embed"][1])
    heads = heads or _heads(source, shapes, width)
    swiglu, rms, qk_norm, rotary, shifted = (
        "blocks.0.mlp.w12.weight" in shapes,
        "blocks.0.norm1.weight" in shapes,
        "blocks.0.attn.q_norm.weight" in shapes,
        "feat_rope.freqs_cos" in shapes,
        shapes.get("blocks.0.adaLN_modulation.1.weight") != (4 * width, width),
    )
    hidden = shapes.get("blocks.0.mlp.w12.weight" if swiglu else "blocks.0.mlp.fc1.weight", (0,))[0]
    network = DiT(
        grid=(side, side),
        classes=shapes["y_embedder.embedding_table.weight"][0] - 1,
        width=width,
        depth=max(layers) + 1,
        heads=heads,
        hidden=hidden // 2 if swiglu else hidden,
        norm="rms" if rms else "layer",
        feed_forward="swiglu" if swiglu else "gelu_tanh",
        rotary=rotary,
        qk_norm=qk_norm,
    )
    values = patch * patch * channels
    with_sigma = shapes["final_layer.linear.weight"][0] == 2 * values
    names = _names(network, prefix, patch, channels, with_sigma=with_sigma, shifted=shifted)
    condition: Any = ClassLabel(classes=network.classes)
    generator = FlowMatching(network=network, shape=(side * side, values), condition=condition, train_shift=1.0)
    like = jax.eval_shape(generator.init, jax.random.key(0))
    params = load(source, names, tensors, like)
    _check_tables(source, prefix, tensors, network)
    return Published(generator, params, patch)


def _heads(source: str, shapes: dict[str, tuple[int, ...]], width: int) -> int:
    for name in ("blocks.0.attn.q_norm.weight", "feat_rope.freqs_cos"):
        if name in shapes:
            return width // shapes[name][-1]
    if width not in HEADS:
        raise ValueError(f"{source} does not say how many attention heads its width of {width} has: give heads")
    return HEADS[width]


def _names(network: DiT, prefix: str, patch: int, channels: int, *, with_sigma: bool, shifted: bool) -> NameMap:
    """How a network's leaves are named in the file."""
    values, ours = patch * patch * channels, "blocks.block"
    velocity = _velocity(values, channels, with_sigma)
    modulation = f"{IN_FILE}.adaLN_modulation.1"
    joint = ("gate_and_value", "w12", "w3") if network.feed_forward == "swiglu" else ("hidden", "fc1", "fc2")
    rules = [
        *linear("embed", "x_embedder.proj", layout=convolution(patch, channels)),
        *linear("time.hidden", "t_embedder.mlp.0", layout=Layout(LINEAR.shape_in_file, _reflected)),
        *linear("time.out", "t_embedder.mlp.2"),
        Rule("label.table", (Part("y_embedder.embedding_table.weight"),)),
        *linear(f"{ours}.attention.qkv", f"{IN_FILE}.attn.qkv"),
        *linear(f"{ours}.attention.out", f"{IN_FILE}.attn.proj"),
        *linear(f"{ours}.feed_forward.{joint[0]}", f"{IN_FILE}.mlp.{joint[1]}"),
        *linear(f"{ours}.feed_forward.out", f"{IN_FILE}.mlp.{joint[2]}"),
        *linear("last_modulation", "final_layer.adaLN_modulation.1"),
        Rule("to_velocity.kernel", (Part("final_layer.linear.weight", velocity),)),
        Rule("to_velocity.bias", (Part("final_layer.linear.bias", velocity),)),
    ]
    if shifted:
        rules += linear(f"{ours}.modulation", modulation)
    else:
        rules += [
            Rule(f"{ours}.modulation.{leaf}", (Part(f"{modulation}.{name}", _without_shifts()),))
            for leaf, name in (("kernel", "weight"), ("bias", "bias"))
        ]
    if network.norm == "rms":
        rules += norm(f"{ours}.attention_norm", f"{IN_FILE}.norm1", bias=False)
        rules += norm(f"{ours}.feed_forward_norm", f"{IN_FILE}.norm2", bias=False)
        rules += norm("last_norm", "final_layer.norm_final", bias=False)
    if network.qk_norm:
        for leaf, name in (("query_norm", "q_norm"), ("key_norm", "k_norm")):
            rules += norm(f"{ours}.attention.{leaf}", f"{IN_FILE}.attn.{name}", bias=network.norm == "layer")
    return NameMap(tuple(rules), (prefix,), rf"^{re.escape(prefix)}(pos_embed|feat_rope\.freqs_(cos|sin))$")


def _check_tables(source: str, prefix: str, tensors: Tensors, network: DiT) -> None:
    """Their fixed tables are weights in the file, and constants here."""
    fixed: dict[str, Any] = {"pos_embed": sincos_table(network.width, network.grid)}
    if network.rotary:
        fixed["feat_rope.freqs_cos"], _ = rotary_table(network.width // network.heads, network.grid)
    for name, table in fixed.items():
        array = tensors.read(prefix + name).astype(np.float32)
        if array.size != table.size or not np.allclose(array.reshape(table.shape), table, atol=1e-2):
            raise ValueError(f"{source}: {name} is not the fixed table that this network has; it cannot be read")
