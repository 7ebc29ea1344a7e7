"""Checkpoints in the layout of SiT and LightningDiT, against their forward pass written out, and what is refused."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from einops import rearrange
from network_reference import assert_close, attention, gelu_tanh, layer_norm, rms_norm, rotary, silu
from published_checkpoint import CLASSES, HEADS, SIDE, WIDTH, checkpoint

from fae_jax.diffusion.samplers import SamplingSection, initial_noise, sample_keys
from fae_jax.generators.published import read_published
from fae_jax.weights import write_tensors

SIT = {"patch": 2, "channels": 4, "sigma": True}
LIGHTNING = {"patch": 1, "channels": 5, "swiglu": True, "rope": True, "rms": True}
VARIANT = {**LIGHTNING, "patch": 2, "sigma": True, "qk_norm": True, "without_shift": True}
LAYER_QK = {"patch": 1, "channels": 5, "qk_norm": True}


def theirs(state, x, t, y, *, patch, channels, **switches):
    """Their forward pass in float64: (b, c, y, x) at their times, 1 = data → their velocity."""
    state = {name: np.asarray(value, np.float64) for name, value in state.items()}
    linear = lambda name, x: x @ state[f"{name}.weight"].T + state[f"{name}.bias"]
    scale = lambda name: {"scale": state[f"{name}.weight"]} if f"{name}.weight" in state else {}
    norm = lambda name, x: (rms_norm if switches.get("rms") else layer_norm)(scale(name), x)
    modulated = lambda x, shift, scale: x * (1 + scale[:, None]) + shift[:, None]

    def attend(name, x):
        query, key, value = rearrange(linear(f"{name}.qkv", x), "b n (t h e) -> t b n h e", t=3, h=HEADS)
        if switches.get("qk_norm"):
            query, key = (
                rms_norm(scale(f"{name}.{each}"), h)
                if switches.get("rms")
                else layer_norm({**scale(f"{name}.{each}"), "bias": state[f"{name}.{each}.bias"]}, h, 1e-5)
                for each, h in (("q_norm", query), ("k_norm", key))
            )
        if switches.get("rope"):
            query, key = rotary(query, (SIDE, SIDE)), rotary(key, (SIDE, SIDE))
        return linear(f"{name}.proj", rearrange(attention(query, key, value), "b n h e -> b n (h e)"))

    def feed(name, x):
        if switches.get("swiglu"):
            gate, value = np.split(linear(f"{name}.w12", x), 2, -1)
            return linear(f"{name}.w3", silu(gate) * value)
        return linear(f"{name}.fc2", gelu_tanh(linear(f"{name}.fc1", x)))

    patches = rearrange(x, "b c (y p) (x q) -> b (y x) (c p q)", p=patch, q=patch)
    h = patches @ state["x_embedder.proj.weight"].reshape(WIDTH, -1).T + state["x_embedder.proj.bias"]
    h = h + state["pos_embed"]
    angle = t[:, None] * 10000 ** (-np.arange(128) / 128)
    told = linear("t_embedder.mlp.0", np.concatenate([np.cos(angle), np.sin(angle)], -1))
    told = silu(linear("t_embedder.mlp.2", silu(told)) + state["y_embedder.embedding_table.weight"][y])
    for layer in range(2):
        name = f"blocks.{layer}"
        parts = linear(f"{name}.adaLN_modulation.1", told)
        if switches.get("without_shift"):
            (s1, g1, s2, g2), b1, b2 = np.split(parts, 4, -1), np.zeros((1, WIDTH)), np.zeros((1, WIDTH))
        else:
            b1, s1, g1, b2, s2, g2 = np.split(parts, 6, -1)
        h = h + g1[:, None] * attend(f"{name}.attn", modulated(norm(f"{name}.norm1", h), b1, s1))
        h = h + g2[:, None] * feed(f"{name}.mlp", modulated(norm(f"{name}.norm2", h), b2, s2))
    shift, scales = np.split(linear("final_layer.adaLN_modulation.1", told), 2, -1)
    out = linear("final_layer.linear", modulated(norm("final_layer.norm_final", h), shift, scales))
    whole = rearrange(out, "b (y x) (p q c) -> b c (y p) (x q)", y=SIDE, p=patch, q=patch)
    return whole[:, :channels]


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(SIT, id="SiT"),
        pytest.param(LIGHTNING, id="LightningDiT"),
        pytest.param(VARIANT, id="variant", marks=pytest.mark.slow),
        pytest.param(LAYER_QK, id="layer", marks=pytest.mark.slow),
    ],
)
def test_a_checkpoint_is_the_velocity_backward(kind: dict, tmp_path: Path):
    state = checkpoint(**kind)
    write_tensors(tmp_path / "model.safetensors", state)
    published = read_published(tmp_path, heads=0 if kind.get("rope") or kind.get("qk_norm") else HEADS)
    network, patch = published.generator.network, published.patch
    assert (network.heads, network.depth, network.classes, patch) == (HEADS, 2, CLASSES, kind["patch"])
    random = np.random.default_rng(3)
    x = random.normal(size=(3, kind["channels"], SIDE * patch, SIDE * patch))
    t, y = np.asarray([0.0, 0.37, 1.0]), np.asarray([0, 7, CLASSES])
    z = rearrange(x, "b c (y p) (x q) -> b (y x) (p q c)", p=patch, q=patch).astype(np.float32)
    times = jnp.asarray(1 - t, jnp.float32)
    ours = jax.jit(published.generator.velocity)(published.params, jnp.asarray(z), times, jnp.asarray(y))
    back = -rearrange(np.asarray(ours), "b (y x) (p q c) -> b c (y p) (x q)", y=SIDE, p=patch, q=patch)
    assert_close(back, theirs(state, x, t, y, **kind), 1e-5)


def test_a_sampler_runs_from_their_noise_to_their_data(tmp_path: Path):
    state = checkpoint(**LIGHTNING)
    write_tensors(tmp_path / "model.safetensors", state)
    generator, params, _ = read_published(tmp_path)
    keys, labels = sample_keys(0, jnp.arange(2)), np.asarray([1, 2])
    settings = SamplingSection(steps=1, guidance=())
    latents = jax.jit(lambda params: generator.sample(params, keys, jnp.asarray(labels), settings))(params)
    noise = np.asarray(initial_noise(keys, generator.shape), np.float64)
    moved = theirs(state, rearrange(noise, "b (y x) c -> b c y x", y=SIDE), np.zeros(2), labels, **LIGHTNING)
    assert_close(latents, noise + rearrange(moved, "b c y x -> b (y x) c"), 1e-5)


def changed(**changes):
    """A LightningDiT checkpoint with tensors replaced; those that are None are left out."""
    state = {**checkpoint(**LIGHTNING), **{name.replace("/", "."): value for name, value in changes.items()}}
    return {name: value for name, value in state.items() if value is not None}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"a": np.ones(3, np.float32)}, "is no checkpoint of SiT or LightningDiT: it has no x_embedder.proj.weight"),
        (changed(**{"blocks/1/attn/proj/bias": None}), "1 missing: blocks.1.attn.proj.bias"),
        (changed(**{"blocks/1/more": np.ones(2, np.float32)}), "1 extra: blocks.1.more"),
        (
            changed(**{"blocks/0/mlp/w3/weight": np.ones((WIDTH, 7), np.float32)}),
            r"1 misshapen: blocks.0.mlp.w3.weight \[24, 7\] instead of \[24, 96\]",
        ),
        (
            changed(pos_embed=np.zeros((1, SIDE * SIDE, WIDTH), np.float32)),
            "pos_embed is not the fixed table that this network has",
        ),
        (changed(**{"t_embedder/mlp/0/bias": np.full(WIDTH, np.nan, np.float32)}), "mlp.0.bias' holds NaN"),
        (checkpoint(**SIT), "does not say how many attention heads its width of 24 has: give heads"),
    ],
)
def test_what_is_refused(state: dict, message: str, tmp_path: Path):
    write_tensors(tmp_path / "model.safetensors", state)
    with pytest.raises(ValueError, match=message):
        read_published(tmp_path)


def test_a_pickle_is_converted_first(tmp_path: Path):
    (tmp_path / "SiT.pt").touch()
    with pytest.raises(ValueError, match=r"fae weights convert .*SiT.pt --out FOLDER"):
        read_published(tmp_path / "SiT.pt")
