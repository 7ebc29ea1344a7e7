"""Does one attention layer do? The paper's encoder ablation: single attention, linear, six layers, no compression.

    fae sweep --config imagenet256_dinov2g --sweep compressor

Everything after the encoder is trained for each. Paper (SiT backbone, unguided FID at 64, 160, 320 epochs): single
attention 2.98, 2.27, 1.98; linear 3.03, 2.38, 2.07; six layers 3.31, 2.47, 2.13; uncompressed 15.37, 12.99, 12.72.
"""

from fae_jax.sweeps import Sweep, grid, listed


def get_sweep() -> Sweep:
    return Sweep(
        points=grid({"compressor.kind": ("attention", "linear", "transformer")})
        + listed({"compressor.kind": "identity", "feature_decoder.kind": "identity"}),
        tasks=("probe", "reconstruction", "generation"),
        metric="generation.sets.guided.frechet.samples_to_heldout",
        also=("features.feature_error", "generator.loss"),
    )
