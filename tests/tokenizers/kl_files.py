"""Files of a small AutoencoderKL at random, by the names of diffusers, of its older versions, of latent-diffusion."""

import re

import numpy as np

from fae_jax.weights import write_tensors

WIDTHS, LAYERS, CHANNELS, GROUPS = (8, 8, 16), 1, 3, 4
FIELDS = {"widths": WIDTHS, "layers": LAYERS, "channels": CHANNELS, "groups": GROUPS}


def state(coarsest: bool = False, seed: int = 0) -> dict[str, np.ndarray]:
    """A state dict as diffusers names it; `coarsest`: with attention in the coarsest level."""
    random, made = np.random.default_rng(seed), {}

    def tensor(name, *shape, centre=0.0):
        spread = 0.1 if len(shape) == 1 else 0.5 / np.sqrt(np.prod(shape[1:]))
        made[name] = (centre + spread * random.normal(size=shape)).astype(np.float32)

    def conv(name, inputs, outputs, side=3):
        tensor(f"{name}.weight", outputs, inputs, side, side)
        tensor(f"{name}.bias", outputs)

    def norm(name, width):
        tensor(f"{name}.weight", width, centre=1.0)
        tensor(f"{name}.bias", width)

    def residual(name, inputs, outputs):
        norm(f"{name}.norm1", inputs)
        conv(f"{name}.conv1", inputs, outputs)
        norm(f"{name}.norm2", outputs)
        conv(f"{name}.conv2", outputs, outputs)
        if inputs != outputs:
            conv(f"{name}.conv_shortcut", inputs, outputs, 1)

    def attention(name, width):
        norm(f"{name}.group_norm", width)
        for each in ("to_q", "to_k", "to_v", "to_out.0"):
            tensor(f"{name}.{each}.weight", width, width)
            tensor(f"{name}.{each}.bias", width)

    def levels(half, blocks, change, widths, inputs, layers, with_attention):
        for i, width in enumerate(widths):
            for j in range(layers):
                residual(f"{half}.{blocks}.{i}.resnets.{j}", inputs if j == 0 else width, width)
                if i == with_attention:
                    attention(f"{half}.{blocks}.{i}.attentions.{j}", width)
            if i < len(widths) - 1:
                conv(f"{half}.{blocks}.{i}.{change}.0.conv", width, width)
            inputs = width

    last = WIDTHS[-1]
    conv("encoder.conv_in", 3, WIDTHS[0])
    levels("encoder", "down_blocks", "downsamplers", WIDTHS, WIDTHS[0], LAYERS, len(WIDTHS) - 1 if coarsest else -1)
    levels("decoder", "up_blocks", "upsamplers", WIDTHS[::-1], last, LAYERS + 1, 0 if coarsest else -1)
    for half in ("encoder", "decoder"):
        for j in (0, 1):
            residual(f"{half}.mid_block.resnets.{j}", last, last)
        attention(f"{half}.mid_block.attentions.0", last)
    norm("encoder.conv_norm_out", last)
    conv("encoder.conv_out", last, 2 * CHANNELS)
    conv("quant_conv", 2 * CHANNELS, 2 * CHANNELS, 1)
    conv("post_quant_conv", CHANNELS, CHANNELS, 1)
    conv("decoder.conv_in", CHANNELS, last)
    norm("decoder.conv_norm_out", WIDTHS[0])
    conv("decoder.conv_out", WIDTHS[0], 3)
    return made


def older(made: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same with attention named as older versions of diffusers did (stabilityai/sd-vae-ft-mse)."""
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed = {}
    for name, array in made.items():
        for new, old in names.items():
            name = name.replace(f".{new}.", f".{old}.")
        renamed[name] = array
    return renamed


def latent_diffusion(made: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same as hustvl/LightningDiT's VA-VAE has it, beside what its training had."""
    renamed = {"loss.logvar": np.zeros((), np.float32), "linear_proj.weight": np.zeros((2, 3), np.float32)}
    for name, array in made.items():
        half, _, rest = name.partition(".")
        for pattern, theirs in (
            (r"down_blocks\.(\d+)", r"down.\1"),
            (r"up_blocks\.(\d+)", lambda match: f"up.{len(WIDTHS) - 1 - int(match[1])}"),
            (r"mid_block\.resnets\.(\d+)", lambda match: f"mid.block_{int(match[1]) + 1}"),
            (r"mid_block\.attentions\.0", "mid.attn_1"),
            (r"resnets", "block"),
            (r"attentions", "attn"),
            (r"(down|up)samplers\.0", r"\1sample"),
            (r"group_norm", "norm"),
            (r"conv_norm_out", "norm_out"),
            (r"conv_shortcut", "nin_shortcut"),
            (r"to_([qkv])", r"\1"),
            (r"to_out\.0", "proj_out"),
        ):
            rest = re.sub(pattern, theirs, rest)
        linear = array.ndim == 2
        renamed[f"{half}.{rest}"] = array[:, :, None, None] if linear else array
    return renamed


def write(folder, made: dict[str, np.ndarray]):
    """A folder as diffusers writes it, without its config.json."""
    write_tensors(folder / "diffusion_pytorch_model.safetensors", made)
    return folder
