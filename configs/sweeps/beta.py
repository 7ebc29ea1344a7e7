"""How much may the latent forget? The weight of the KL divergence in the features stage.

The paper does not print β, in no table and no text; 5e-4 is this project's default, and what similar autoencoders
come to. So no point here is the paper's.

    fae sweep --config quickstart --sweep beta

Only stage Ia is trained. Every point has an evaluation of its own: what of x̂ a linear probe still recognises.
"""

from fae_jax.sweeps import Sweep, grid


def get_sweep() -> Sweep:
    return Sweep(
        points=grid({"features.beta": (5e-5, 5e-4, 5e-3, 5e-2)}),
        stages=("features",),
        tasks=("probe",),
        metric="features.feature_error",
        also=("features.kl_per_token", "features.feature_cosine"),
    )
