"""Diffusion over a `velocity(z, t, condition)`: path, predictions, guidance and samplers. Knows no network.

Latents are (b, n, c) float32, times (b,) float32 in [0, 1], and t = 1 is noise.
"""
