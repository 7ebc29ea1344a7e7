"""fae_jax: FAE (Feature Auto-Encoder, arXiv 2512.07829) in JAX."""

__version__ = "0.1.0"
