"""A transformer of 6 layers as the encoder: a row of the paper's encoder ablation, on the SiT backbone.

    fae run --config paper/encoder_6_layers --workdir runs/encoder_6_layers

Expected (paper, FID at 64, 160, 320 epochs): unguided 3.31, 2.47, 2.13; guided at 160 and 320 1.84, 1.65.
The ablation is ranked unguided.
Cost: 2,079 EFLOP in all stages, 292 of them the generator's (computed, not measured).
"""

from ml_collections import ConfigDict

from fae_jax.config import load_config


def get_config() -> ConfigDict:
    config = load_config("paper/sit")
    config.name = "encoder_6_layers"
    config.compressor.kind = "transformer"
    config.compressor.transformer.depth = 6
    return config
