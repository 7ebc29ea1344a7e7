"""Networks that predict a velocity from a noisy latent, a time and a condition; the table of kinds.

A kind is a Flax module with a `Section` and `build(section, *, grid, condition, compute)`, called with
(latents (b, n, c), times (b,), condition) → (b, n, c) float32. One that can be aligned (`generators.alignment`) has
`tokens`, the rows and columns of its tokens, `depth` and `width`, and takes `tokens_after=k`: it then returns a tuple
whose last are the tokens after block k, (b, m, width).
"""

NETWORKS = {
    "dit": "fae_jax.generators.networks.dit:DiT",
    "mmdit": "fae_jax.generators.networks.mmdit:MMDiT",
}
