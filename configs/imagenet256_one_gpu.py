"""FAE at a size for one GPU of 24 GB or more: DINOv2-B/14, ImageNet 256×256, DiT-B. No row of the paper.

    fae run --config imagenet256_one_gpu --workdir runs/one_gpu --config.data.path=DATA/train

Cost: 23.8 EFLOP in all stages; hours at half of the bf16 peak: RTX 4090 80 · L4 109 · A100 42 · H100 13 (computed,
not measured). Memory by `fae compile --topology rtx4090 --quick`, an estimate: pixels 3.9 GiB, generator 4.5, of the
16.8 that JAX takes of 24 GB; without remat and with two microbatches 26.2 and 31.2.
"""

from ml_collections import ConfigDict

from fae_jax.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.name = "imagenet256_one_gpu"
    config.data.source = "folder"
    config.data.path = "data/imagenet/train"
    config.data.image_size = 256
    config.data.classes = 1000
    config.data.workers = 8

    config.encoder.name = "dinov2_b14"
    config.encoder.feature_norm = "standardise"
    config.compressor.attention.heads = 12
    config.feature_decoder.transformer.heads = 12
    config.feature_decoder.transformer.hidden = 2048
    config.feature_decoder.transformer.last_norm = False
    config.pixel_decoder.width = 768
    config.pixel_decoder.depth = 12
    config.pixel_decoder.heads = 12
    config.pixel_decoder.hidden = 2048
    dit = config.generator.flow_matching.dit
    dit.width = 768
    dit.depth = 12
    dit.heads = 12
    dit.hidden = 2048

    config.features.steps = 100_000
    config.features.batch = 256
    config.pixels.steps = 100_000
    config.pixels.batch = 256
    config.pixels.microbatches = 4
    config.finetune.steps = 25_000
    config.finetune.batch = 256
    config.finetune.microbatches = 4
    config.cache.batch = 256
    config.generator.steps = 400_000
    config.generator.batch = 256
    config.generator.microbatches = 4
    config.sampling.batch = 64
    config.compute.remat = "full"
    return config
