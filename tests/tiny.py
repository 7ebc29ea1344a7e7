"""The smallest experiment that has every stage: digits, 16 tokens of 16 channels, 8 steps a stage."""

from ml_collections import ConfigDict

from fae_jax.config import default_config

STEPS = 8


def get_config() -> ConfigDict:
    config = default_config()
    config.name = "tiny"
    config.data.source = "digits"
    config.data.image_size = 32
    config.data.flip = True
    config.data.holdout = 0.8
    config.data.classes = 10
    config.data.in_memory = True
    config.encoder.name = "vit"
    config.encoder.train = True
    config.encoder.patch = 8
    config.encoder.width = 16
    config.encoder.depth = 1
    config.encoder.heads = 2
    config.encoder.hidden = 32
    config.compressor.latent_width = 4
    config.compressor.attention.heads = 2
    config.compressor.transformer.heads = 2
    config.compressor.attention.head_width = 8
    for part in (config.feature_decoder.transformer, config.pixel_decoder, config.generator.flow_matching.dit):
        part.depth = 1
        part.heads = 2
        part.hidden = 24
    config.pixel_decoder.width = 16
    config.generator.flow_matching.dit.width = 16
    for section in (config.encoder_training, config.features, config.pixels, config.finetune, config.generator):
        section.steps = STEPS
        section.batch = 8
        section.learning_rate = 1e-2
        section.warmup = 2
    config.pixels.ema = (0.9,)
    config.finetune.ema = (0.9,)
    config.generator.ema = (0.5, 0.9)
    config.encoder_training.shift = 2
    config.cache.batch = 16
    config.cache.shard_size = 64
    config.sampling.steps = 4
    config.sampling.batch = 5
    config.evaluation.samples = 20
    config.evaluation.probe.steps = 12
    config.evaluation.probe.batch = 64
    config.evaluation.probe.blocks = (1,)
    config.compute.dtype = "float32"
    config.compute.scan = True
    config.logging.every = 1
    config.logging.preview_every = 0
    config.logging.tensorboard = False
    config.checkpoint.every = 3
    return config
