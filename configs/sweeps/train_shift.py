"""Noise levels the generator is trained on: timestep shift .3, .4, .5, .7 and none (1).

Paper (16 × 16 × 32 latents, unguided FID at 64, 160, 320 epochs): none 2.67, 2.02, 1.76; 0.7 2.41, 1.91, 1.68;
0.5 2.32, 1.85, 1.71; 0.3 2.32, 1.88, 1.77. 0.4 is the main results': 2.34 at 64 epochs, 1.48 at 800.

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
