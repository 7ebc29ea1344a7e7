"""How many channels does the latent need? (paper's ablation: 16, 32, 64; 32 is the main experiment's)

    fae sweep --config quickstart --sweep latent_width

Everything after the encoder is trained for each width. Early stopping: at step 100 of the features stage the better
half goes on; what a width costs later, in generating, is seen in the others.
"""

from fae_jax.sweeps import Halving, Sweep, grid


def get_sweep() -> Sweep:
    return Sweep(
        points=grid({"compressor.latent_width": (4, 8, 16, 32)}),
        tasks=("reconstruction", "generation"),
        metric="generation.sets.guided.frechet.samples_to_heldout",
        also=("features.feature_error", "generator.loss"),
        stop=Halving(metric="features.feature_error", steps=(100,), keep=0.5),
    )
