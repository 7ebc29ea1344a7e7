"""SiT + SwiGLU: a rung of the paper's generator ladder.

    fae run --config paper/sit_swiglu --workdir runs/sit_swiglu

Expected (paper, FID unguided at 64, 160, 320 epochs): 3.02, 2.26, 1.97.
Cost: 292 EFLOP of the generator (computed, not measured); the autoencoder is the main experiment's:
`fae sweep --config imagenet256_dinov2g --sweep dit_structure` trains the whole ladder on one.
"""

from ml_collections import ConfigDict

from fae_jax.config import load_config


def get_config() -> ConfigDict:
    config = load_config("paper/sit")
    config.name = "sit_swiglu"
    config.generator.flow_matching.dit.feed_forward = "swiglu"
    config.generator.flow_matching.dit.hidden = 3072
    return config
