"""A bundle of fae_jax in plain PyTorch: images to latents and back, labels to images, by torch and safetensors alone.
A published encoder is not in the bundle: its features go to `compress`.

    model = FAE("bundle")                               # what `fae export --format bundle` wrote
    images = model.generate(labels=[207, 360], seed=0)  # (2, height, width, 3) in [−1, 1]: those of fae_jax.load
"""

import json
import math
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch.nn import functional as F

ACTIVATIONS = {"silu": F.silu, "gelu": F.gelu, "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"), "relu": F.relu}
KNOWN = {"tokenizer": "fae", "compressor": "attention linear identity", "feature_decoder": "transformer identity"}


def linear(p, name, x):
    return x @ p[f"{name}.kernel"] + p.get(f"{name}.bias", 0)


def norm(kind, p, name, x, epsilon=1e-6):
    if kind == "rms":
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + epsilon) * p.get(f"{name}.scale", 1)
    return F.layer_norm(x, x.shape[-1:], p.get(f"{name}.scale"), p.get(f"{name}.bias"), epsilon)


def places(grid, width):
    """Angles of every token's row and column, (n, width / 4) each."""
    rates = 10000 ** (-4 * torch.arange(width // 4, dtype=torch.float64) / width)
    axes = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in grid), indexing="ij")
    return [torch.outer(axis.flatten(), rates) for axis in axes]


def rotary(width, grid, like):
    """Cosines and sines, (n, 1, width): pairs of channels turn with the row, in the second half with the column."""
    angle = torch.cat(places(grid, width), 1).repeat_interleave(2, 1)[:, None]
    return angle.cos().to(like), angle.sin().to(like)


def mix(query, key, value):
    out = F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (query, key, value)))
    return out.transpose(1, 2).flatten(2)


def attention(p, x, heads, turn, qk_norm=""):
    query, key, value = linear(p, "attention.qkv", x).unflatten(-1, (3, heads, -1)).unbind(2)
    if qk_norm:
        epsilon = 1e-6 if qk_norm == "rms" else 1e-5
        names = ("attention.query_norm", "attention.key_norm")
        query, key = (norm(qk_norm, p, *each, epsilon) for each in zip(names, (query, key), strict=True))
    if turn is not None:
        turned = (torch.stack([-x[..., 1::2], x[..., ::2]], -1).flatten(-2) for x in (query, key))
        query, key = (x * turn[0] + y * turn[1] for x, y in zip((query, key), turned, strict=True))
    return linear(p, "attention.out", mix(query, key, value))


def feed_forward(p, x, kind):
    if kind == "swiglu":
        gate, value = linear(p, "feed_forward.gate_and_value", x).chunk(2, -1)
        return linear(p, "feed_forward.out", F.silu(gate) * value)
    return linear(p, "feed_forward.out", ACTIVATIONS[kind](linear(p, "feed_forward.hidden", x)))


def layers(p, at="blocks.block."):
    """The parameters of each block in turn; they are stacked along the first axis."""
    for i in range(len(p[f"{at}attention.out.kernel"])):
        yield {name.removeprefix(at): leaf[i] for name, leaf in p.items() if name.startswith(at)}


def transformer(blocks, x, heads, kind, feed="swiglu", turn=None):
    for p in blocks:
        x = x + attention(p, norm(kind, p, "attention_norm", x), heads, turn)
        x = x + feed_forward(p, norm(kind, p, "feed_forward_norm", x), feed)
    return x


def threefry(key, x, y):
    """JAX's random bits: two 32-bit words for two of a counter and two of a key (Salmon et al., 2011)."""
    keys = (*key, key[0] ^ key[1] ^ 0x1BD11BDA)
    x, y = (x + keys[0]) % 2**32, (y + keys[1]) % 2**32
    for i in range(5):
        for turn in ((13, 15, 26, 6), (17, 29, 16, 24))[i % 2]:
            x = (x + y) % 2**32
            y = ((y << turn) % 2**32 | y >> (32 - turn)) ^ x
        x, y = (x + keys[(i + 1) % 3]) % 2**32, (y + keys[(i + 2) % 3] + i + 1) % 2**32
    return x, y


def normal(key, draw, shape):
    """What jax.random.normal(fold_in(key, draw), shape) gives."""
    x, y = threefry(threefry(key, 0, draw), 0, torch.arange(math.prod(shape)))
    uniform = ((x ^ y) >> 9 | 0x3F800000).to(torch.int32).view(torch.float32) - 1
    return math.sqrt(2) * torch.erfinv(uniform * 2 - (1 - 2**-24)).view(shape)


class FAE:
    """A model: `folder` is a bundle; in its place `content` of its bundle.json and the tensors of its `parts`."""

    def __init__(self, folder=None, content=None, parts=None):
        if folder is not None:
            content = json.loads((Path(folder) / "bundle.json").read_text())
            files = {"encoder" if f.stem == "model" else f.stem: f for f in Path(folder).rglob("*.safetensors")}
            parts = {part: load_file(file) for part, file in files.items()}
        self.config, self.facts, self.latents = content["config"], content["facts"], content["latents"]
        self.parts, self.grid = parts, tuple(self.facts["grid"])
        for name, kinds in KNOWN.items():
            if self.config[name]["kind"] not in kinds.split():
                raise ValueError(f"{name} {self.config[name]['kind']!r} is not read here: use fae_jax.load")
        own, sampling = self.config["generator"].get("flow_matching", {}), self.config["sampling"]
        dit, kinds = own.get("dit", {}), [each[3:] for each in sampling["guidance"]]
        odd = [dit.get("patch", 1) > 1, dit.get("middle"), dit.get("head_width"), any(kinds)]
        odd += [sampling.get(name) for name in ("shift_base", "guided_channels", "last_step_before_shift")]
        odd += [own.get("prediction", "velocity") != "velocity", sampling.get("last", "mean") != "mean"]
        if any(odd) or sampling["sampler"] in ("adams_bashforth", "dopri5"):
            raise ValueError("the generator or its sampling has what is not read here: use fae_jax.load")

    def encode(self, images):
        """Images (b, y, x, 3) in [−1, 1] → latents, by an encoder that travels with the model."""
        own, p = self.config["encoder"], self.parts["encoder"]
        patches = images.unflatten(2, (-1, own["patch"])).unflatten(1, (-1, own["patch"])).transpose(2, 3)
        x = linear(p, "trunk.patch_embed", patches.flatten(3).flatten(1, 2))
        x = torch.cat([p["trunk.cls_token"].expand(len(x), 1, -1), x], 1) + p["trunk.position_table"]
        x = transformer(layers(p, "trunk.blocks.block."), x, own["heads"], "layer", "gelu")
        return self.compress(norm("layer", p, "last_norm", x)[:, 1:])

    def compress(self, features):
        """The encoder's features (b, n, width) → latents (b, rows, columns, channels), the posterior's means."""
        own, p, x = self.config["compressor"], self.parts["compressor"], features
        if self.config["encoder"]["feature_norm"] == "standardise":
            mean, std = (torch.tensor(self.facts[name]).to(x) for name in ("mean", "std"))
            x = (x - mean) / std.clamp(min=1e-6)
        if own["kind"] == "attention":
            split = (own["attention"]["heads"], own["attention"]["head_width"])
            mixed = mix(*(linear(p, name, x).unflatten(-1, split) for name in ("query", "key", "value")))
            x = ACTIVATIONS[own["attention"]["activation"]](linear(p, "skip", x) + mixed)
        if own["kind"] != "identity":
            x, kind = linear(p, "moments", x)[..., : own["latent_width"]], own["posterior"]["kind"]
            x = norm("rms", {}, "", x, 1e-6 if kind == "rms" else 1e-30) if kind in ("rms", "sphere") else x
        return x.unflatten(1, self.grid)

    def decode(self, latents):
        """Latents (b, rows, columns, channels) → images (b, y, x, 3) in [−1, 1]."""
        x, p = latents.flatten(1, 2), self.parts["feature_decoder"]
        if p:
            heads = self.config["feature_decoder"]["transformer"]["heads"]
            x = linear(p, "embed", x) + p["position.table"]
            x = transformer(layers(p), x, heads, "rms", turn=rotary(x.shape[-1] // heads, self.grid, x))
            x = linear(p, "to_features", x) if "to_features.kernel" in p else x
            x = norm("rms", p, "last_norm", x) if "last_norm.scale" in p else x
        p = self.parts["pixel_decoder"]
        x = linear(p, "embed", x) + p["position.table"]
        x = transformer(layers(p), x, self.config["pixel_decoder"]["heads"], "layer")
        x = linear(p, "to_pixels", norm("layer", p, "last_norm", x)).unflatten(1, self.grid)
        patch = self.config["data"]["image_size"] // self.grid[0]
        return x.unflatten(-1, (patch, patch, 3)).transpose(2, 3).flatten(3, 4).flatten(1, 2).clamp(-1, 1)

    def velocity(self, z, time, labels):
        """v̂(z_t, t, label): z (b, n, c), time a number (1 = noise), labels (b,); the number of classes means none."""
        own, p = self.config["generator"]["flow_matching"]["dit"], self.parts["generator"]
        kind, width, heads = own["norm"], own["width"], own["heads"]
        rows, columns = places(self.grid, width)
        x = linear(p, "embed", z) + torch.cat([columns.sin(), columns.cos(), rows.sin(), rows.cos()], 1).to(z)
        angle = own["time_scale"] * time * torch.exp(-math.log(10000) * torch.arange(128, device=z.device) / 128)
        told = F.silu(linear(p, "time.hidden", torch.cat([angle.cos(), angle.sin()])))
        told = F.silu(linear(p, "time.out", told) + p["label.table"][labels])[:, None]
        turn = rotary(width // heads, self.grid, z) if own["rotary"] else None
        for layer in layers(p):
            b1, s1, g1, b2, s2, g2 = linear(layer, "modulation", told).chunk(6, -1)
            h = norm(kind, layer, "attention_norm", x) * (1 + s1) + b1
            x = x + g1 * attention(layer, h, heads, turn, kind if own["qk_norm"] else "")
            h = norm(kind, layer, "feed_forward_norm", x) * (1 + s2) + b2
            x = x + g2 * feed_forward(layer, h, own["feed_forward"])
        shift, scale = linear(p, "last_modulation", told).chunk(2, -1)
        return linear(p, "to_velocity", norm(kind, p, "last_norm", x) * (1 + scale) + shift)

    def guided(self, z, time, labels, guidance):
        """v_c + (w − 1) (v_c − v_u), with the weight w of the interval low < t ≤ high."""
        v = self.velocity(z, time, labels)
        weight = next((w for low, high, w in guidance if low < time <= high or time == low == 0), 1)
        none = torch.full_like(labels, len(self.parts["generator"]["label.table"]) - 1)
        return v if weight == 1 else v + (weight - 1) * (v - self.velocity(z, time, none))

    @torch.no_grad()
    def generate(self, labels, seed=0, sampler=None, steps=None, guidance=None):
        """One image per label, (b, y, x, 3) in [−1, 1]; what is None is as the model's configuration has it."""
        own = self.config["sampling"]
        sampler, steps, shift = sampler or own["sampler"], steps or own["steps"], own["shift"]
        guidance = own["guidance"] if guidance is None else guidance
        stochastic = sampler == "euler_maruyama"
        last = own["last_step"] * shift / (1 - (1 - shift) * own["last_step"]) if stochastic else 0
        times = torch.linspace(1, last, steps + (not stochastic), dtype=torch.float64)
        times = (times / (times + shift * (1 - times))).float().tolist() + [0.0] * stochastic
        kernel = self.parts["generator"]["embed.kernel"]
        labels, shape = torch.as_tensor(labels, device=kernel.device), (math.prod(self.grid), len(kernel))
        keys = [threefry((0, seed), 0, i) for i in range(len(labels))]
        z = torch.stack([normal(key, 0, shape) for key in keys]).to(kernel)
        for i, (t, then) in enumerate(zip(times[:-1], times[1:], strict=True)):
            h, v = then - t, self.guided(z, t, labels, guidance)
            v = (v + self.guided(z + h * v, then, labels, guidance)) / 2 if sampler == "heun" else v
            z = z + h * (v + z + (1 - t) * v if stochastic else v)
            if stochastic and i < steps - 1:
                z = z + math.sqrt(-2 * t * h) * torch.stack([normal(key, i + 1, shape) for key in keys]).to(z)
        mean, variance = (torch.tensor(self.latents["statistics"][name]).to(z) for name in ("mean", "variance"))
        return self.decode((z * variance.sqrt() + mean).unflatten(1, self.grid))
