"""The MMDiT with SD3's switches against diffusers' own transformer, random weights, texts of several lengths;
its folder is read and written as it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")

import torch
from diffusers import SD3Transformer2DModel

from fae_jax.conditions.label import ClassLabel
from fae_jax.generators.flow_matching import FlowMatching
from fae_jax.generators.networks.mmdit import MMDiT
from fae_jax.generators.sd3 import OPTIONS, TABLE, read_sd3, to_sd3

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

WIDTH, HEADS, SIDE, CHANNELS = 32, 4, 4, 6


class Told(ClassLabel):
    """A text of 7 tokens in a class's place."""

    def none(self, count):
        shapes = {"tokens": (7, 20), "mask": (7,), "pooled": (12,)}
        return {name: jnp.zeros((count, *shape), bool if name == "mask" else float) for name, shape in shapes.items()}


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


@pytest.mark.parametrize("qk_norm", [False, True])
def test_is_sd3_where_its_switches_are(qk_norm, tmp_path):
    model = reference(qk_norm)
    module = MMDiT(
        grid=(SIDE, SIDE),
        width=WIDTH,
        depth=3,
        heads=HEADS,
        hidden=4 * WIDTH,
        **OPTIONS,
        qk_norm=qk_norm,
    )
    model.save_pretrained(tmp_path)
    generator = FlowMatching(network=module, shape=(SIDE**2, CHANNELS), condition=Told(classes=1), train_shift=1.0)
    params = read_sd3(tmp_path, generator)
    fields, tensors = to_sd3(module, params)
    state = model.state_dict()
    assert tensors.keys() == state.keys() and fields == {
        name: list(v) if isinstance(v, tuple) else v for name, v in model.config.items() if not name.startswith("_")
    }
    for name, tensor in tensors.items():
        np.testing.assert_allclose(tensor, state[name].numpy(), rtol=0, atol=1e-5 if name == TABLE else 0)
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
