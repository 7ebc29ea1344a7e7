"""Networks that predict a velocity from a noisy latent, a time and a condition; the table of kinds.

A kind is a Flax module with a `Section` and `build(section, *, grid, condition, compute)`, called with
(latents (b, n, c), times (b,), condition) → (b, n, c) float32.
"""

NETWORKS = {
    "dit": "fae_jax.generators.networks.dit:DiT",
    "mmdit": "fae_jax.generators.networks.mmdit:MMDiT",
}
