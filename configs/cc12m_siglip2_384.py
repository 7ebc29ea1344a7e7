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

from fae_jax.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.name = "cc12m_siglip2_384"
    config.data.source = "tar"  # img2dataset's shards, or the index that `fae prepare` made of them
    config.data.path = "prepared/cc12m"
    config.data.captions = True
    config.data.image_size = 384
    config.data.workers = 16

    config.encoder.name = "siglip2_g16_384"
    config.encoder.feature_norm = "standardise"
    config.compressor.latent_width = 64
    config.pixels.noise_relative = True  # "scaled by the norm": in units of this encoder's features

    config.condition.kind = "text"
    config.condition.text.tower = "flan_t5_xl"
    config.condition.dropout = 0.1
    config.generator.flow_matching.network = "mmdit"
    mmdit = config.generator.flow_matching.mmdit
    mmdit.width = 1536
    mmdit.depth = 24
    mmdit.heads = 24
    mmdit.hidden = 4096
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
