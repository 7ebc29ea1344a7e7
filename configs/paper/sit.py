"""SiT-XL/1, no shift: the generator ladder's first rung, and the encoder ablation's single attention layer.

    fae run --config paper/sit --workdir runs/sit

Expected (paper, FID at 64, 160, 320 epochs): unguided 2.98, 2.27, 1.98; guided at 160 and 320 1.79, 1.61.
Guided scores are with one weight on [0, 0.7], searched in steps of 0.1: `fae evaluate --task guidance`.
Cost: 292 EFLOP of the generator (computed, not measured; 164 hours of an H100 at half of its bf16 peak) beside the
main experiment's autoencoder.
"""

from ml_collections import ConfigDict

from fae_jax.config import load_config


def get_config() -> ConfigDict:
    config = load_config("paper/no_shift")
    config.name = "sit"
    dit = config.generator.flow_matching.dit
    dit.norm = "layer"
    dit.feed_forward = "gelu_tanh"
    dit.hidden = 4608  # SwiGLU has a third matrix: 3072 there, and as many parameters
    dit.rotary = False
    config.generator.steps = 800_730
    config.checkpoint.keep_at = (160_146, 400_365, 800_730)  # 64, 160 and 320 epochs
    return config
