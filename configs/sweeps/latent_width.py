"""How many channels does the latent need? The paper's ablation: 32, 48 and 64, without a timestep shift.

    fae sweep --config imagenet256_dinov2g --sweep latent_width

Paper (unguided FID at 64, 160, 320 epochs): 32 channels 2.67, 2.02, 1.76; 48 channels 2.73, 2.10, 1.88; 64 channels
2.86, 2.25, 1.99. Everything after the encoder is trained for each width: what a width costs is seen in generating,
not in the features' error, which falls with every channel; so none is stopped early.
"""

from fae_jax.sweeps import Sweep, grid, listed, product

UNSHIFTED = {"generator.flow_matching.train_shift": 1.0, "sampling.shift": 1.0}


def get_sweep() -> Sweep:
    return Sweep(
        points=product(listed(UNSHIFTED), grid({"compressor.latent_width": (32, 48, 64)})),
        tasks=("reconstruction", "generation"),
        metric="generation.sets.unguided.frechet.samples_to_heldout",
        also=("features.feature_error", "generator.loss"),
    )
