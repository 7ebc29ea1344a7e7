"""The FID Inception network as a frozen encoder for fae_jax."""
