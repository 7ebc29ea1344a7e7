"""Text to image with FAE (arXiv 2512.07829): SigLIP2 g-opt/16, CC12M 256×256, MMDiT 16 × 1024.

    fae prepare cc12m 'cc12m/{00000..01242}.tar' --out prepared/cc12m --drop_duplicates
    fae run --config configs/cc12m_siglip2_256.py --workdir runs/cc12m_siglip2_256
    fae sample --workdir runs/cc12m_siglip2_256 --prompts captions.txt

Expected (paper, table of text-to-image): zero-shot COCO-2014 FID-30K 7.57 unguided, 7.11 guided.
Batch, steps, schedule, sampler and guidance are as printed; the text says batch 256 and the table 512, which alone
fits its 400 epochs. flan-t5-xl is the frozen text tower; the unguided row is drawn by Euler–Maruyama.
Generator: 603,326,496 parameters (printed: 603.46 M), split as in fae_jax/generators/networks/mmdit.py.
Cost in EFLOP (computed, not measured): features 953 · pixels 556 · finetune 61 · cache 14 · generator 312, together
1,896. The generator's holds flan-t5-xl; the cache's is of 10.9 M images and their twins. Chip-hours of all stages at
half of a chip's bf16 peak: v4 3,831 · v5p 2,295 · v6e 1,148 · H100 or H200 1,065 · A100 3,376.
"""

from ml_collections import ConfigDict

from fae_jax.config import load_config


def get_config() -> ConfigDict:
    config = load_config("cc12m_dinov2g_256")
    config.name = "cc12m_siglip2_256"
    config.encoder.name = "siglip2_g16_256"
    config.encoder.feature_norm = "standardise"
    config.pixels.noise_relative = True  # "scaled by the norm": in units of this encoder's features
    return config
