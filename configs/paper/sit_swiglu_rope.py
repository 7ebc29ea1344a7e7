"""SiT + rotary positions: a rung of the paper's generator ladder.

    fae run --config paper/sit_swiglu_rope --workdir runs/sit_swiglu_rope

Expected (paper, FID unguided at 64, 160, 320 epochs): 2.86, 2.182, 1.89.
Cost: 292 EFLOP of the generator (computed, not measured); the autoencoder is the main experiment's:
`fae sweep --config imagenet256_dinov2g --sweep dit_structure` trains the whole ladder on one.
"""

from ml_collections import ConfigDict

from fae_jax.config import load_config


def get_config() -> ConfigDict:
    config = load_config("paper/sit_swiglu")
    config.name = "sit_swiglu_rope"
    config.generator.flow_matching.dit.rotary = True
    return config
