"""No timestep shift: the second row of the paper's main results.

    fae run --config paper/no_shift --workdir runs/no_shift

Expected (paper, FID unguided | guided): 64 epochs 2.55 | 2.01, 80 epochs 2.39 | 1.92, 800 epochs 1.58 | 1.41. The
same fields come twice more in the ablations, at 64, 160 and 320 epochs unguided, as other runs: 32 channels 2.67,
2.02, 1.76; the last rung of the generator's ladder 2.74, 2.15, 1.86.
Cost: as the main experiment's, 729 EFLOP of the generator (computed, not measured; 410 hours of an H100 at half of
its bf16 peak); the autoencoder may be shared with it.
"""

from ml_collections import ConfigDict

from fae_jax.config import load_config


def get_config() -> ConfigDict:
    config = load_config("imagenet256_dinov2g")
    config.name = "no_shift"
    config.generator.flow_matching.train_shift = 1.0
    config.sampling.shift = 1.0
    config.generator.steps = 2_001_823
    config.checkpoint.keep_at = (160_146, 200_182, 400_365, 800_730)  # 64, 80, 160 and 320 epochs
    return config
