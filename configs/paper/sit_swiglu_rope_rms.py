"""SiT + RMSNorm, which makes it LightningDiT: a rung of the paper's generator ladder.

    fae run --config paper/sit_swiglu_rope_rms --workdir runs/sit_swiglu_rope_rms

Expected (paper, FID unguided at 64, 160, 320 epochs): 2.74, 2.15, 1.86.
Cost: 292 EFLOP of the generator (computed, not measured); the autoencoder is the main experiment's:
`fae sweep --config imagenet256_dinov2g --sweep dit_structure` trains the whole ladder on one.
"""

from ml_collections import ConfigDict

from fae_jax.config import load_config


def get_config() -> ConfigDict:
    config = load_config("paper/sit_swiglu_rope")
    config.name = "sit_swiglu_rope_rms"
    config.generator.flow_matching.dit.norm = "rms"
    return config
