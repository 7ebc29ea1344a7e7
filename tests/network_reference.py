"""Float64 NumPy statements of every network, written from the equations: an independent reference.

They read the parameter trees of the modules under test (block parameters stacked along a leading axis) and are
slow and plain on purpose: loops over heads and positions, complex numbers for rotations.
"""

from __future__ import annotations

import functools

import jax
import numpy as np
from scipy.special import erf, expit


def randomise(tree, seed=0, spread=0.2):
    """A tree of the same shapes with nothing left at zero or one: normals, about 1 for the scales of norms."""
    random = np.random.default_rng(seed)

    def draw(path, leaf):
        centre = 1.0 if jax.tree_util.keystr(path).endswith("['scale']") else 0.0
        return (centre + spread * random.normal(size=leaf.shape)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, tree)


def parameters(module, *inputs, seed=0, spread=0.2):
    """`randomise` over the parameters that the module would make for `inputs`."""
    return randomise(jax.eval_shape(module.init, jax.random.key(0), *inputs).get("params", {}), seed, spread)


def layer(stacked, i):
    """Parameters of block i out of the stacked ones."""
    return jax.tree.map(lambda leaf: np.asarray(leaf[i], np.float64), stacked)


def depth_of(stacked):
    return jax.tree.leaves(stacked)[0].shape[0]


def silu(x):
    return x * expit(x)


def gelu(x):
    return 0.5 * x * (1 + erf(x / np.sqrt(2)))


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


ACTIVATIONS = {
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "gelu_quick": lambda x: x / (1 + np.exp(-1.702 * x)),
    "relu": lambda x: np.where(x > 0, x, 0.0),
}
GATED = {"swiglu": silu, "geglu": gelu, "geglu_tanh": gelu_tanh}


def linear(p, x):
    return x @ np.asarray(p["kernel"], np.float64) + np.asarray(p.get("bias", 0.0), np.float64)


def rms_norm(p, x, epsilon=1e-6):
    return x / np.sqrt(np.mean(x**2, -1, keepdims=True) + epsilon) * p.get("scale", 1.0)


def layer_norm(p, x, epsilon=1e-6):
    centred = x - x.mean(-1, keepdims=True)
    spread = np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon)
    return centred / spread * p.get("scale", 1.0) + p.get("bias", 0.0)


NORMS = {"rms": rms_norm, "layer": layer_norm}


def attention(query, key, value, *, mask=None, bias=None, scale=None):
    """Softmax attention, (b, n, h, d), head by head; mask and bias (b, h, n, m)."""
    out = np.zeros((*query.shape[:3], value.shape[-1]))
    for b in range(query.shape[0]):
        for h in range(query.shape[2]):
            logits = query[b, :, h] @ key[b, :, h].T * (query.shape[-1] ** -0.5 if scale is None else scale)
            if bias is not None:
                logits = logits + bias[b, h]
            if mask is not None:
                logits = np.where(mask[b, h], logits, -np.inf)
            weight = np.exp(logits - logits.max(-1, keepdims=True))
            out[b, :, h] = weight / weight.sum(-1, keepdims=True) @ value[b, :, h]
    return out


def rotary(x, grid, theta=10000.0):
    """Pairs of neighbouring channels as complex numbers, turned by y f_i (first half) and x f_i (second half)."""
    d = x.shape[-1]
    pairs = x[..., 0::2] + 1j * x[..., 1::2]
    for n in range(x.shape[1]):
        y, column = divmod(n, grid[1])
        for i in range(d // 4):
            frequency = theta ** (-4 * i / d)
            pairs[:, n, :, i] *= np.exp(1j * y * frequency)
            pairs[:, n, :, d // 4 + i] *= np.exp(1j * column * frequency)
    out = np.empty_like(x)
    out[..., 0::2], out[..., 1::2] = pairs.real, pairs.imag
    return out


def heads_of(x, heads):
    return x.reshape(*x.shape[:2], heads, x.shape[-1] // heads)


def self_attention(p, x, heads, grid=None, **logits):
    query, key, value = (heads_of(part, heads) for part in np.split(linear(p["qkv"], x), 3, axis=-1))
    if "query_norm" in p:
        norm = functools.partial(layer_norm, epsilon=1e-5) if "bias" in p["query_norm"] else rms_norm
        query, key = norm(p["query_norm"], query), norm(p["key_norm"], key)
    if grid is not None:
        query, key = rotary(query, grid), rotary(key, grid)
    return linear(p["out"], attention(query, key, value, **logits).reshape(*x.shape[:2], -1))


def feed_forward(p, x, kind):
    if kind in GATED:
        gate, value = np.split(linear(p["gate_and_value"], x), 2, axis=-1)
        return linear(p["out"], GATED[kind](gate) * value)
    return linear(p["out"], ACTIVATIONS[kind](linear(p["hidden"], x)))


def block(p, x, heads, *, norm, kind="swiglu", grid=None, epsilon=1e-6, **logits):
    branch = self_attention(p["attention"], NORMS[norm](p["attention_norm"], x, epsilon), heads, grid, **logits)
    x = x + p.get("attention_scale", 1.0) * branch
    branch = feed_forward(p["feed_forward"], NORMS[norm](p["feed_forward_norm"], x, epsilon), kind)
    return x + p.get("feed_forward_scale", 1.0) * branch


def dit_block(p, x, condition, heads, *, norm, kind, grid=None):
    modulation = linear(p["modulation"], silu(condition))[:, None]
    b1, s1, g1, b2, s2, g2 = np.split(modulation, 6, axis=-1)
    x = x + g1 * self_attention(
        p["attention"], (1 + s1) * NORMS[norm](p.get("attention_norm", {}), x) + b1, heads, grid
    )
    return x + g2 * feed_forward(
        p["feed_forward"], (1 + s2) * NORMS[norm](p.get("feed_forward_norm", {}), x) + b2, kind
    )


def sincos(width, grid):
    """Token by token: sines then cosines of the column, sines then cosines of the row."""
    table = np.zeros((grid[0] * grid[1], width))
    quarter = width // 4
    for n in range(len(table)):
        y, column = divmod(n, grid[1])
        for i in range(quarter):
            frequency = 10000 ** (-i / quarter)
            table[n, i::quarter] = [
                np.sin(column * frequency),
                np.cos(column * frequency),
                np.sin(y * frequency),
                np.cos(y * frequency),
            ]
    return table


def time_embedding(p, time, scale):
    angle = scale * np.asarray(time, np.float64)[:, None] * 10000 ** (-np.arange(128) / 128)
    return linear(p["out"], silu(linear(p["hidden"], np.concatenate([np.cos(angle), np.sin(angle)], -1))))


def dit(p, latents, time, label, heads, grid, *, norm="rms", kind="swiglu", rotate=True, time_scale=1.0):
    width = p["embed"]["kernel"].shape[1]
    x = linear(p["embed"], latents) + sincos(width, grid)
    condition = time_embedding(p["time"], time, time_scale) + np.asarray(p["label"]["table"], np.float64)[label]
    for i in range(depth_of(p["blocks"])):
        one = layer(p["blocks"]["block"], i)
        x = dit_block(one, x, condition, heads, norm=norm, kind=kind, grid=grid if rotate else None)
    shift, scale = np.split(linear(p["last_modulation"], silu(condition))[:, None], 2, axis=-1)
    return linear(p["to_velocity"], (1 + scale) * NORMS[norm](p.get("last_norm", {}), x) + shift)


def compressor(p, features, heads, activation=silu):
    query, key, value = (heads_of(linear(p[name], features), heads) for name in ("query", "key", "value"))
    mixed = attention(query, key, value).reshape(*features.shape[:2], -1)
    return np.split(linear(p["moments"], activation(linear(p["skip"], features) + mixed)), 2, axis=-1)


def feature_decoder(p, latents, heads, grid):
    x = linear(p["embed"], latents) + p["position"]["table"]
    for i in range(depth_of(p["blocks"])):
        x = block(layer(p["blocks"]["block"], i), x, heads, norm="rms", grid=grid)
    return rms_norm(p["last_norm"], x) if "last_norm" in p else x


def pixel_decoder(p, features, heads, grid, patch):
    x = linear(p["embed"], features) + p["position"]["table"]
    for i in range(depth_of(p["blocks"])):
        x = block(layer(p["blocks"]["block"], i), x, heads, norm="layer")
    tokens = linear(p["to_pixels"], layer_norm(p["last_norm"], x))
    image = np.zeros((len(x), grid[0] * patch, grid[1] * patch, 3))
    for n in range(x.shape[1]):
        y, column = divmod(n, grid[1])
        square = tokens[:, n].reshape(-1, patch, patch, 3)
        image[:, y * patch : (y + 1) * patch, column * patch : (column + 1) * patch] = square
    return image


def assert_close(got, want, tolerance=1e-5):
    """The largest difference is below `tolerance` of the largest wanted value."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape, (got.shape, want.shape)
    worst = np.abs(got - want).max() / np.abs(want).max()
    assert worst <= tolerance, f"off by {worst:.2e} of the largest value"
