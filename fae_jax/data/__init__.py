"""From stored images to batches: sources, transforms, the loader and the latent cache.

One image's way: source (bytes, index) → transforms (pixels, label) → loader (batch k), and, once encoded,
record → batch of posteriors (`latents`, `latent_loader`).
"""
