"""A linear encoder: a row of the paper's encoder ablation, on the SiT backbone.

    fae run --config paper/encoder_linear --workdir runs/encoder_linear

Expected (paper, FID at 64, 160, 320 epochs): unguided 3.03, 2.38, 2.07; guided at 160 and 320 1.92, 1.76.
The ablation is ranked unguided.
Cost: 1,798 EFLOP in all stages, 292 of them the generator's (computed, not measured).
"""

from ml_collections import ConfigDict

from fae_jax.config import load_config


def get_config() -> ConfigDict:
    config = load_config("paper/sit")
    config.name = "encoder_linear"
    config.compressor.kind = "linear"
    return config
