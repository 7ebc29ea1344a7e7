"""The features themselves as the latent, 1,536 channels: a row of the paper's encoder ablation, on the SiT backbone.

    fae run --config paper/uncompressed --workdir runs/uncompressed

Expected (paper, FID at 64, 160, 320 epochs): unguided 15.37, 12.99, 12.72; guided at 160 and 320 17.85, 16.53.
The ablation is ranked unguided.
Cost: 907 EFLOP in all stages, 294 of them the generator's (computed, not measured).
"""

from ml_collections import ConfigDict

from fae_jax.config import load_config


def get_config() -> ConfigDict:
    config = load_config("paper/sit")
    config.name = "uncompressed"
    config.compressor.kind = "identity"
    config.feature_decoder.kind = "identity"
    return config
