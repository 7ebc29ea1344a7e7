"""Networks that predict a velocity from a noisy latent, a time and a condition."""

from fae_jax.generators.networks.dit import DiT

GENERATORS = {"flow_matching": "fae_jax.generators.flow_matching:FlowMatchingSection"}

__all__ = ["GENERATORS", "DiT"]
