"""How many channels does the latent need?

    fae sweep --config quickstart --sweep latent_width

Paper (DINOv2-g, no timestep shift, unguided FID at 64, 160, 320 epochs): 32 channels 2.67, 2.02, 1.76; 48 channels
2.73, 2.10, 1.88; 64 channels 2.86, 2.25, 1.99. These points are for the quickstart's features, of 96 channels.
Everything after the encoder is trained for each width. Early stopping: at step 100 of the features stage the better
half goes on; what a width costs later, in generating, is seen in the others.
"""

from fae_jax.sweeps import Halving, Sweep, grid


def get_sweep() -> Sweep:
    return Sweep(
        points=grid({"compressor.latent_width": (4, 8, 16, 32)}),
        tasks=("reconstruction", "generation"),
        metric="generation.sets.unguided.frechet.samples_to_heldout",
        also=("features.feature_error", "generator.loss"),
        stop=Halving(metric="features.feature_error", steps=(100,), keep=0.5),
    )
