"""A transformer of 4 layers as the encoder: a row of the paper's encoder ablation, on the SiT backbone.

    fae run --config paper/encoder_4_layers --workdir runs/encoder_4_layers

Expected (paper, FID at 64, 160, 320 epochs): the paper prints none for 4 layers; with 6, 3.31, 2.47, 2.13 unguided.
The ablation is ranked unguided.
Cost: 1,984 EFLOP in all stages, 292 of them the generator's (computed, not measured).
"""

from ml_collections import ConfigDict

from fae_jax.config import load_config


def get_config() -> ConfigDict:
    config = load_config("paper/sit")
    config.name = "encoder_4_layers"
    config.compressor.kind = "transformer"
    config.compressor.transformer.depth = 4
    return config
