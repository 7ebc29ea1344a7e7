"""Text to image with FAE (arXiv 2512.07829): SigLIP2 g-opt/16, CC12M 384×384, MMDiT 24 × 1536.

    fae prepare cc12m 'cc12m/{00000..01242}.tar' --out prepared/cc12m --drop_duplicates
    fae run --config configs/cc12m_siglip2_384.py --workdir runs/cc12m_siglip2_384
    fae sample --workdir runs/cc12m_siglip2_384 --prompts captions.txt

Expected: the paper prints this model's size, and no score of it.
Batch, steps, schedule, sampler and guidance are as printed; the text says batch 256 and the table 512, which alone
fits its 400 epochs. flan-t5-xl is the frozen text tower; the unguided row is drawn by Euler–Maruyama.
Generator: 2,016,955,456 parameters (printed: 2,017.84 M), split as in fae_jax/generators/networks/mmdit.py.
Cost in EFLOP (computed, not measured): features 2,227 · pixels 1,303 · finetune 144 · cache 32 · generator 1,550,
together 5,254. The generator's holds flan-t5-xl; the cache's is of 10.9 M images and their twins. Chip-hours of all
stages at half of a chip's bf16 peak: v4 10,615 · v5p 6,359 · v6e 3,180 · H100 or H200 2,950 · A100 9,356.
"""

from ml_collections import ConfigDict

from fae_jax.config import load_config


def get_config() -> ConfigDict:
    config = load_config("cc12m_siglip2_256")
    config.name = "cc12m_siglip2_384"
    config.data.image_size = 384
    config.encoder.name = "siglip2_g16_384"
    config.compressor.latent_width = 64
    mmdit = config.generator.flow_matching.mmdit
    mmdit.width = 1536
    mmdit.depth = 24
    mmdit.heads = 24
    mmdit.hidden = 4096
    return config
