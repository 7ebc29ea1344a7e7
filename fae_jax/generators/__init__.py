"""Networks that predict a velocity from a noisy latent, a time and a condition."""

from fae_jax.generators.networks.dit import DiT

__all__ = ["DiT"]
