"""The MMDiT with SD3's switches against diffusers' own transformer, random weights, texts of several lengths."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")

import torch
from diffusers import SD3Transformer2DModel

from fae_jax.generators.networks.mmdit import MMDiT
from fae_jax.nn.embeddings import sincos_table

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

WIDTH, HEADS, SIDE, CHANNELS = 32, 4, 4, 6
SWITCHES = {"norm": "layer", "feed_forward": "gelu_tanh", "feed_forward_bias": True, "rotary": False}


def reference(qk_norm):
    torch.manual_seed(0)
    model = SD3Transformer2DModel(
        sample_size=SIDE,
        patch_size=1,
        in_channels=CHANNELS,
        num_layers=3,
        attention_head_dim=WIDTH // HEADS,
        num_attention_heads=HEADS,
        joint_attention_dim=20,
        caption_projection_dim=WIDTH,
        pooled_projection_dim=12,
        out_channels=CHANNELS,
        pos_embed_max_size=SIDE,
        qk_norm="rms_norm" if qk_norm else None,
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.2 + (parameter.ndim == 1) * 0.1)
    return model.eval()


def ours(state):
    """Their tensors as a tree of ours."""
    array = {name: tensor.numpy() for name, tensor in state.items()}

    def linear(*names):
        weights = [array[f"{name}.weight"] for name in names]
        kernel = np.concatenate([weight.reshape(len(weight), -1).T for weight in weights], axis=1)
        return {"kernel": kernel, "bias": np.concatenate([array[f"{name}.bias"] for name in names])}

    def block(i, last):
        at, tree = f"transformer_blocks.{i}.", {}
        queries = {"image": ("to_q", "to_k", "to_v"), "text": ("add_q_proj", "add_k_proj", "add_v_proj")}
        modules = {
            "image": ("norm1", "attn.to_out.0", "ff", "attn.norm_q", "attn.norm_k"),
            "text": ("norm1_context", "attn.to_add_out", "ff_context", "attn.norm_added_q", "attn.norm_added_k"),
        }
        for name, (norm, out, feed, *norms) in modules.items():
            tree[f"{name}_qkv"] = linear(*(f"{at}attn.{part}" for part in queries[name]))
            modulation = linear(f"{at}{norm}.linear")
            for which, there in zip(("query", "key"), norms, strict=True):
                if f"{at}{there}.weight" in array:
                    tree[f"{name}_{which}_norm"] = {"scale": array[f"{at}{there}.weight"]}
            if last and name == "text":  # scale, then shift, where there is no gate
                modulation = {key: np.roll(leaf, WIDTH, axis=-1) for key, leaf in modulation.items()}
            else:
                tree[f"{name}_out"] = linear(f"{at}{out}")
                tree[f"{name}_feed_forward"] = {
                    "hidden": linear(f"{at}{feed}.net.0.proj"),
                    "out": linear(f"{at}{feed}.net.2"),
                }
            tree[f"{name}_modulation"] = modulation
        return tree

    inner = [block(i, False) for i in range(2)]
    last = linear("norm_out.linear")
    return {
        "embed": linear("pos_embed.proj"),
        "text_embed": linear("context_embedder"),
        "time": {
            "hidden": linear("time_text_embed.timestep_embedder.linear_1"),
            "out": linear("time_text_embed.timestep_embedder.linear_2"),
        },
        "pooled_hidden": linear("time_text_embed.text_embedder.linear_1"),
        "pooled_out": linear("time_text_embed.text_embedder.linear_2"),
        "blocks": {"block": jax.tree.map(lambda *leaves: np.stack(leaves), *inner)},
        "last_block": block(2, True),
        "last_modulation": {key: np.roll(leaf, WIDTH, axis=-1) for key, leaf in last.items()},
        "to_velocity": linear("proj_out"),
    }


@pytest.mark.parametrize("qk_norm", [False, True])
def test_is_sd3_where_its_switches_are(qk_norm):
    model = reference(qk_norm)
    params = ours(model.state_dict())
    table = model.state_dict()["pos_embed.pos_embed"].numpy()[0]
    np.testing.assert_allclose(table, sincos_table(WIDTH, (SIDE, SIDE)), atol=1e-5)
    module = MMDiT(
        grid=(SIDE, SIDE),
        width=WIDTH,
        depth=3,
        heads=HEADS,
        hidden=4 * WIDTH,
        **SWITCHES,
        conditioning="pooled",
        qk_norm=qk_norm,
        time_scale=1000.0,
    )
    random = np.random.default_rng(0)
    lengths, time = (7, 3, 1), np.array([0.05, 0.5, 0.97], np.float32)
    z, tokens, pooled = (random.normal(size=shape).astype(np.float32) for shape in ((3, 16, 6), (3, 7, 20), (3, 12)))
    mask = np.arange(7)[None] < np.array(lengths)[:, None]
    text = {"tokens": jnp.asarray(tokens), "mask": jnp.asarray(mask), "pooled": jnp.asarray(pooled)}
    out = np.asarray(jax.jit(module.apply)({"params": params}, z, time, text))
    for i, length in enumerate(lengths):  # theirs knows no mask: it is given the tokens there are
        grid = torch.from_numpy(z[i : i + 1].reshape(1, SIDE, SIDE, CHANNELS).transpose(0, 3, 1, 2).copy())
        with torch.no_grad():
            theirs = model(
                hidden_states=grid,
                encoder_hidden_states=torch.from_numpy(tokens[i : i + 1, :length]),
                pooled_projections=torch.from_numpy(pooled[i : i + 1]),
                timestep=torch.tensor([1000 * time[i]]),
            ).sample
        want = theirs.numpy().transpose(0, 2, 3, 1).reshape(16, CHANNELS)
        assert np.abs(out[i] - want).max() <= 1e-4 * np.abs(want).max()
