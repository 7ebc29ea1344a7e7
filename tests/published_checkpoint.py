"""Checkpoints as SiT's and LightningDiT's modules name and shape them, at random."""

import numpy as np
from network_reference import rotary, sincos

WIDTH, HEADS, CLASSES, SIDE = 24, 3, 10, 3  # SIDE: tokens in a row


def checkpoint(
    *,
    patch,
    channels,
    sigma=False,
    swiglu=False,
    rope=False,
    rms=False,
    qk_norm=False,
    without_shift=False,
    depth=2,
    width=WIDTH,
    heads=HEADS,
    side=SIDE,
):
    """A state dict, by their switches."""
    random, state, hidden = np.random.default_rng(0), {}, 4 * width

    def tensor(name, *shape, centre=0.0):
        state[name] = (centre + 0.2 * random.normal(size=shape)).astype(np.float32)

    def linear(name, inputs, outputs):
        tensor(f"{name}.weight", outputs, inputs)
        tensor(f"{name}.bias", outputs)

    def norm(name, size):
        if rms or "q_norm" in name or "k_norm" in name:
            tensor(f"{name}.weight", size, centre=1.0)
        if not rms and "attn" in name:
            tensor(f"{name}.bias", size)

    tensor("x_embedder.proj.weight", width, channels, patch, patch)
    tensor("x_embedder.proj.bias", width)
    linear("t_embedder.mlp.0", 256, width)
    linear("t_embedder.mlp.2", width, width)
    tensor("y_embedder.embedding_table.weight", CLASSES + 1, width)
    state["pos_embed"] = sincos(width, (side, side))[None].astype(np.float32)
    for layer in range(depth):
        name = f"blocks.{layer}"
        norm(f"{name}.norm1", width)
        norm(f"{name}.norm2", width)
        linear(f"{name}.attn.qkv", width, 3 * width)
        linear(f"{name}.attn.proj", width, width)
        for each in ("q_norm", "k_norm") if qk_norm else ():
            norm(f"{name}.attn.{each}", width // heads)
        linear(f"{name}.mlp.w12" if swiglu else f"{name}.mlp.fc1", width, 2 * hidden if swiglu else hidden)
        linear(f"{name}.mlp.w3" if swiglu else f"{name}.mlp.fc2", hidden, width)
        linear(f"{name}.adaLN_modulation.1", width, (4 if without_shift else 6) * width)
    norm("final_layer.norm_final", width)
    linear("final_layer.linear", width, patch * patch * channels * (1 + sigma))
    linear("final_layer.adaLN_modulation.1", width, 2 * width)
    if rope:
        ones = np.ones((1, side * side, 1, width // heads))
        turned = rotary(ones.copy(), (side, side))  # (cos − sin, cos + sin) of every pair
        even, odd = turned[0, :, 0, 0::2], turned[0, :, 0, 1::2]
        state["feat_rope.freqs_cos"] = np.repeat((even + odd) / 2, 2, -1).astype(np.float32)
        state["feat_rope.freqs_sin"] = np.repeat((odd - even) / 2, 2, -1).astype(np.float32)
    return state
