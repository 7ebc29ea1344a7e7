"""Which guidance weight? One trained model, sampled and scored at several (users' most frequent question).

    fae sweep --config quickstart --sweep guidance --from runs/quickstart

Nothing is trained where --from has every stage: all points share all of them, and each only samples and scores.
Weights act on times below 0.7, where the paper's main results have 2.5; their mild ones above stay. The paper's
ablations have none above, and search the weight in steps of 0.1.
"""

from fae_jax.sweeps import Sweep, grid

WEIGHTS = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0)


def get_sweep() -> Sweep:
    return Sweep(
        points=grid({"sampling.guidance": [((0.9, 1.0, 0.9), (0.7, 0.9, 1.0), (0.0, 0.7, w)) for w in WEIGHTS]}),
        tasks=("generation",),
        metric="generation.sets.guided.frechet.samples_to_heldout",
        also=("generation.sets.guided.accuracy",),
    )
