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

from fae_jax.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.name = "cc12m_siglip2_256"
    config.data.source = "tar"  # img2dataset's shards, or the index that `fae prepare` made of them
    config.data.path = "prepared/cc12m"
    config.data.captions = True
    config.data.image_size = 256
    config.data.workers = 16

    config.encoder.name = "siglip2_g16_256"
    config.encoder.feature_norm = "standardise"
    config.compressor.latent_width = 32
    config.pixels.noise_relative = True  # "scaled by the norm": in units of this encoder's features

    config.condition.kind = "text"
    config.condition.text.tower = "flan_t5_xl"
    config.condition.dropout = 0.1
    config.generator.flow_matching.network = "mmdit"
    mmdit = config.generator.flow_matching.mmdit
    mmdit.width = 1024
    mmdit.depth = 16
    mmdit.heads = 16
    mmdit.hidden = 2816
    config.generator.steps = 1_000_000
    config.generator.batch = 512
    config.generator.learning_rate = 1e-4
    config.generator.schedule = "constant"
    config.generator.warmup = 0
    config.generator.flow_matching.train_shift = 0.4
    config.sampling.shift = 0.4
    config.sampling.sampler = "euler"
    config.sampling.steps = 250
    config.sampling.guidance = ((0.0, 0.9, 1.5),)
    config.evaluation.generation.metrics = ("fid",)
    config.evaluation.samples = 30_000
    config.compute.remat = "full"
    return config
