"""The networks of generators."""

NETWORKS = {"dit": "fae_jax.generators.networks.dit:DiT"}
