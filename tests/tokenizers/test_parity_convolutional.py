"""AutoencoderKL beside diffusers'; TAEF2's real weights beside PyTorch code of our own, on real photographs."""

import io
import os
import tarfile
from pathlib import Path

import jax
import kl_files
import numpy as np
import pytest
from einops import rearrange
from running import TINY

from fae_jax.config import check, load_config, with_values
from fae_jax.evaluation.metrics.fidelity import psnr
from fae_jax.tokenizers import tokenizer_kind

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch")


def built(kind: str, size: int, **fields):
    values = {"tokenizer.kind": kind, "data.image_size": size}
    values |= {f"tokenizer.{kind}.{name}": value for name, value in fields.items()}
    config = check(with_values(load_config(str(TINY)), values))
    tokenizer = tokenizer_kind(config).build(config)
    return tokenizer, {part: tokenizer.load(part) for part in (*tokenizer.encodes, *tokenizer.decodes)}


def tokens_of(cells) -> np.ndarray:
    """(b, c, y, x) → tokens of 2 × 2 cells, each in the order (y, x, c)."""
    return rearrange(cells.numpy(), "b c (y p) (x q) -> b (y x) (p q c)", p=2, q=2)


@pytest.mark.parametrize("attention", ["middle", "coarsest"])
def test_it_encodes_and_decodes_as_diffusers_does(attention: str, tmp_path: Path):
    diffusers = pytest.importorskip("diffusers")
    state = kl_files.state(coarsest=attention == "coarsest")
    coarsest = "Attn" if attention == "coarsest" else ""
    model = diffusers.AutoencoderKL(
        block_out_channels=kl_files.WIDTHS,
        layers_per_block=kl_files.LAYERS,
        latent_channels=kl_files.CHANNELS,
        norm_num_groups=kl_files.GROUPS,
        down_block_types=["DownEncoderBlock2D", "DownEncoderBlock2D", f"{coarsest}DownEncoderBlock2D"],
        up_block_types=[f"{coarsest}UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"],
    )
    model.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
    model.save_pretrained(tmp_path)
    fields = {"weights": str(tmp_path), "attention": attention, **kl_files.FIELDS}
    tokenizer, params = built("autoencoder_kl", 32, **fields)
    images = np.random.default_rng(0).uniform(-1, 1, (2, 32, 32, 3)).astype(np.float32)
    with torch.no_grad():
        posterior = model.eval().encode(torch.from_numpy(images).permute(0, 3, 1, 2)).latent_dist
        decoded = model.decode(posterior.mean).sample.permute(0, 2, 3, 1).numpy()
    mean, log_variance = jax.jit(tokenizer.encode)(params, images)
    np.testing.assert_allclose(mean, tokens_of(posterior.mean), atol=1e-4)
    np.testing.assert_allclose(log_variance, tokens_of(posterior.logvar), atol=1e-4)
    assert np.mean(np.abs(decoded) < 1) > 0.9  # little is clipped
    np.testing.assert_allclose(
        jax.jit(tokenizer.decode)(params, tokens_of(posterior.mean)), decoded.clip(-1, 1), atol=1e-4
    )


def block(weights, name, x):
    """Of the authors' names: `conv.0`, `conv.2`, `conv.4`, and `pool` in front of them where there is one."""

    def convolve(which, x):
        return torch.nn.functional.conv2d(
            x, weights[f"{name}.{which}.weight"], weights.get(f"{name}.{which}.bias"), padding="same"
        )

    if f"{name}.pool.0.weight" in weights:
        scale, offset = (weights[f"{name}.pool.1.{each}"] for each in ("weight", "bias"))
        hidden = torch.nn.functional.group_norm(convolve("pool.0", x), 4, scale, offset)
        x = x + convolve("pool.3", hidden.relu())
    hidden = convolve("conv.0", x).relu()
    hidden = convolve("conv.2", hidden).relu()
    return (convolve("conv.4", hidden) + x).relu()


def run(weights, x, decoder: bool):
    """Layers in the order of their numbers; a convolution without bias changes the grid."""
    if decoder:
        x = 3 * torch.tanh(x / 3)
    for number in sorted({int(name.split(".")[0]) for name in weights}):
        if f"{number}.weight" not in weights:
            x = block(weights, str(number), x)
            continue
        resampled = f"{number}.bias" not in weights
        if resampled and decoder:
            x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        stride = 2 if resampled and not decoder else 1
        x = torch.nn.functional.conv2d(
            x, weights[f"{number}.weight"], weights.get(f"{number}.bias"), stride, padding=1
        )
        x = x.relu() if decoder and number == 1 else x
    return x


@pytest.mark.real_data
@pytest.mark.skipif("FAE_REAL_DATA" not in os.environ, reason="FAE_REAL_DATA is not set")
def test_taef2_on_its_real_weights_and_real_photographs():
    from safetensors.torch import load_file

    folder = Path(os.environ["FAE_REAL_DATA"])
    files = {half: str(folder / "weights" / f"taef2_{half}.safetensors") for half in ("encoder", "decoder")}
    with tarfile.open(folder / "images" / "imagenette224-val-00000.tar") as tar:
        names = [name for name in tar.getnames() if name.endswith(".jpg")][::150]
        bytes_of = [tar.extractfile(name).read() for name in names]
    from PIL import Image

    pixels = np.stack([np.asarray(Image.open(io.BytesIO(each)).convert("RGB"))[56:168, 56:168] for each in bytes_of])
    images = pixels.astype(np.float32) / 127.5 - 1
    tokenizer, params = built("taesd", 112, **files)
    assert (tokenizer.grid, tokenizer.channels) == ((7, 7), 128)
    latents = jax.jit(tokenizer.encode)(params, images).mean
    decoded = np.asarray(jax.jit(tokenizer.decode)(params, latents))
    # in float64: on one photograph in twelve PyTorch's own float32 is off by 1.3e-4
    theirs = {half: {name: t.double() for name, t in load_file(file).items()} for half, file in files.items()}
    with torch.no_grad():
        cells = run(theirs["encoder"], torch.from_numpy(images).double().permute(0, 3, 1, 2) / 2 + 0.5, decoder=False)
        painted = run(theirs["decoder"], cells, decoder=True).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(latents, tokens_of(cells), atol=1e-4)
    np.testing.assert_allclose(decoded, (2 * painted - 1).clip(-1, 1), atol=1e-4)
    assert psnr(pixels, np.round((decoded + 1) * 127.5).astype(np.uint8)).mean() >= 28
