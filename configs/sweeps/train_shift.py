"""Noise levels the generator is trained on: timestep shift (1 = none; 0.4 in the paper's main results).

Paper (16 × 16 × 32 latents, unguided FID at 64, 160, 320 epochs): none 2.67, 2.02, 1.76; 0.7 2.41, 1.91, 1.68;
0.5 2.32, 1.85, 1.71; 0.3 2.32, 1.88, 1.77.

    fae sweep --config quickstart --sweep train_shift

The autoencoder is trained once and shared by all points, or taken from an experiment that has one:

    fae sweep --config quickstart --sweep train_shift --from runs/quickstart

Training and sampling shift change together.
"""

from fae_jax.sweeps import Sweep, zipped

SHIFTS = (0.3, 0.4, 0.5, 0.7, 1.0)


def get_sweep() -> Sweep:
    return Sweep(
        points=zipped({"generator.flow_matching.train_shift": SHIFTS, "sampling.shift": SHIFTS}),
        tasks=("generation",),
        metric="generation.sets.unguided.frechet.samples_to_heldout",
        also=("generation.sets.unguided.accuracy",),
    )
