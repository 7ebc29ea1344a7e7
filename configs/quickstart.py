"""All of FAE on a laptop: scikit-learn's handwritten digits at 32×32, a ViT trained here as the frozen encoder.

    fae quickstart

The shapes are the paper's at a hundredth of the size: one attention layer as compressor, six blocks as feature
decoder, a ViT as pixel decoder, LightningDiT as generator.
"""

from ml_collections import ConfigDict

from fae_jax.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.name = "quickstart"

    config.data.source = "digits"
    config.data.image_size = 32
    config.data.flip = False  # a mirrored digit is no digit
    config.data.holdout = 0.2
    config.data.classes = 10
    config.data.in_memory = True

    config.encoder.name = "vit"
    config.encoder.train = True
    config.encoder.patch = 8
    config.encoder.width = 96
    config.encoder.depth = 4
    config.encoder.heads = 4
    config.encoder.hidden = 384
    config.encoder_training.steps = 360
    config.encoder_training.batch = 64
    config.encoder_training.warmup = 40
    config.encoder_training.shift = 2
    config.encoder_training.learning_rate = 2e-3
    config.encoder_training.label_smoothing = 0.05
    config.encoder_training.mask = 0.2

    config.compressor.latent_width = 16
    config.compressor.attention.heads = 4
    config.compressor.attention.head_width = 64
    config.compressor.transformer.heads = 4
    config.feature_decoder.transformer.heads = 4
    config.feature_decoder.transformer.hidden = 256
    config.pixel_decoder.width = 96
    config.pixel_decoder.depth = 3
    config.pixel_decoder.heads = 4
    config.pixel_decoder.hidden = 256
    dit = config.generator.flow_matching.dit
    dit.width = 128
    dit.depth = 4
    dit.heads = 4
    dit.hidden = 344
    dit.time_scale = 1000.0  # finer from the first step on, where there are few steps

    config.features.steps = 230
    config.features.batch = 64
    config.features.learning_rate = 2e-3
    config.features.warmup = 30
    config.pixels.steps = 200
    config.pixels.batch = 64
    config.pixels.learning_rate = 2e-3
    config.pixels.warmup = 20
    config.pixels.ema = (0.98,)
    config.finetune.steps = 130
    config.finetune.batch = 64
    config.finetune.learning_rate = 1e-3
    config.finetune.warmup = 10
    config.finetune.ema = (0.98,)
    config.cache.batch = 128
    config.cache.shard_size = 1024
    config.generator.steps = 500
    config.generator.batch = 64
    config.generator.learning_rate = 1.5e-3
    config.generator.warmup = 30
    config.generator.schedule = "cosine"
    config.generator.ema = (0.99,)

    # the shift of 0.4 is for latents of 8,192 numbers; these have 256
    config.generator.flow_matching.train_shift = 1.0
    config.sampling.shift = 1.0
    config.sampling.steps = 25
    config.sampling.batch = 250
    config.evaluation.samples = 500
    config.evaluation.probe.linear = "logistic"
    config.evaluation.probe.latent_pooling = "flat"

    config.compute.dtype = "float32"
    config.compute.scan = False
    config.logging.every = 10
    config.logging.preview_every = 0
    config.checkpoint.every = 100
    return config
