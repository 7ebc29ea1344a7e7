"""A generator and a metric for fae_jax, found by their entry points."""
