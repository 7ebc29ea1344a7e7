"""64 latent channels: a row of the paper's ablation of the latent's width.

    fae run --config paper/width_64 --workdir runs/width_64

Expected (paper, FID unguided at 64, 160, 320 epochs, no shift): 2.86, 2.25, 1.99; with 32 channels
(`paper/no_shift`) 2.67, 2.02, 1.76. rFID .66 (.68 with 32).
Cost: features and pixels as in the main experiment, 292 EFLOP of the generator (computed, not measured; 164 hours of
an H100 at half of its bf16 peak).
"""

from ml_collections import ConfigDict

from fae_jax.config import load_config


def get_config() -> ConfigDict:
    config = load_config("paper/no_shift")
    config.name = "width_64"
    config.compressor.latent_width = 64
    config.generator.steps = 800_730
    config.checkpoint.keep_at = (160_146, 400_365, 800_730)  # 64, 160 and 320 epochs
    return config
