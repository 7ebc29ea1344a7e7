"""Noise levels the generator is trained on: timestep shift (paper: 0.4 for 16 × 16 × 32 latents; 1 = none).

    fae sweep --config quickstart --sweep train_shift

The autoencoder is trained once and shared by all points, or taken from an experiment that has one:

    fae sweep --config quickstart --sweep train_shift --from runs/quickstart

Training and sampling shift change together.
"""

from fae_jax.sweeps import Sweep, zipped

SHIFTS = (0.25, 0.4, 0.7, 1.0)


def get_sweep() -> Sweep:
    return Sweep(
        points=zipped({"generator.flow_matching.train_shift": SHIFTS, "sampling.shift": SHIFTS}),
        tasks=("generation",),
        metric="generation.sets.guided.frechet.samples_to_heldout",
        also=("generation.sets.guided.accuracy",),
    )
