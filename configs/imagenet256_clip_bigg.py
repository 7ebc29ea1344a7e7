"""FAE on the encoder of Kandinsky 2.2: OpenCLIP's ViT-bigG/14, ImageNet 256×256, otherwise the main experiment.

    fae run --config configs/imagenet256_clip_bigg.py --workdir runs/clip_bigg
    fae evaluate --workdir runs/clip_bigg --task probe reconstruction generation

Expected: nobody has trained it. The latent carries the encoder's patch tokens, 1,664 wide. Kandinsky 2.2's decoder is
told the encoder's pooled vector, a projection of its class token, 1,280 wide, which no patch token gives back: what
one is told is no input for the other, and both look at an image through the same network.
Parameters: compressor 44,755,008 · feature decoder 189,736,832 · pixel decoder 305,491,968 · DiT 675,256,736.
Cost in EFLOP (computed, not measured): features 1,372 · pixels 745 · finetune 81 · cache 3 · generator 729, together
2,929. Chip-hours of all stages at half of a chip's bf16 peak: v4 5,918 · v5p 3,546 · v6e 1,773 · H100 or H200 1,645 ·
A100 5,216.
"""

from ml_collections import ConfigDict

from fae_jax.config import load_config


def get_config() -> ConfigDict:
    config = load_config("imagenet256_dinov2g")
    config.name = "imagenet256_clip_bigg"
    config.encoder.name = "clip_bigg14"
    config.encoder.feature_norm = "standardise"
    config.compressor.attention.heads = 26  # 1,664 = 26 × 64
    config.feature_decoder.transformer.heads = 26
    config.pixels.noise_relative = True  # in units of this encoder's features
    return config
