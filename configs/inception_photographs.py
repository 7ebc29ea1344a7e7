"""FAE on real photographs with a real pretrained network, on two CPU cores: what the compressed space understands.

Images: Imagenette (ImageNet, 10 classes; 9,469 training images, 1,500 of the validation ones), 224×224, as
WebDataset tars. Encoder: the FID Inception network up to its 16×16×768 map (`examples/inception_encoder`; the weights
that shu223/iOS-10-Sampler carries). Compared: compressors, and the two ways to norm features, as in the paper's
encoder ablation; results and commands in docs/understanding.md.

    pip install -e examples/inception_encoder
    fae train features --config inception_photographs --workdir runs/attention \\
        --config.data.path='imagenette/train-*.tar' --config.data.heldout_path=imagenette/val-00000.tar \\
        --config.encoder.weights=inception.npz

    linear       --config.compressor.kind=linear
    6 layers     --config.compressor.kind=transformer
    raw features --config.encoder.feature_norm=none

The first of them encodes the images once (3.7 GB in `features/` for all 9,469) for all four.
Expected, of half of the images: 32.7 % of the held-out variance missed, linear probe 94.2 % on x, 91.2 % on x̂; with
--config.features.steps=2000 21.6 % and 93.7 % on x̂.
Cost on two shared cores: 5 images a second to encode (a quarter to half an hour), then 7 to 11 minutes to train
each; 2,000 steps took 101 minutes. With more time, train longer before anything else.
"""

from ml_collections import ConfigDict

from fae_jax.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.name = "inception_photographs"
    config.data.source = "tar"
    config.data.path = "imagenette/train"
    config.data.heldout_path = "imagenette/val"
    config.data.image_size = 224
    config.data.flip = False  # twins would double the time to encode
    config.data.classes = 10
    config.data.features = "features"

    config.encoder.name = "inception"

    config.compressor.latent_width = 32
    config.compressor.attention.heads = 4
    config.compressor.attention.head_width = 256  # 4/3 of the features' width in all; the paper's: four times as wide
    config.compressor.transformer.width = 256
    config.compressor.transformer.heads = 4
    config.compressor.transformer.hidden = 683
    config.feature_decoder.transformer.depth = 2
    config.feature_decoder.transformer.width = 384
    config.feature_decoder.transformer.heads = 6
    config.feature_decoder.transformer.hidden = 1024
    config.pixel_decoder.width = 384
    config.pixel_decoder.depth = 6
    config.pixel_decoder.heads = 6
    config.pixel_decoder.hidden = 1024
    dit = config.generator.flow_matching.dit
    dit.width = 384
    dit.depth = 12
    dit.heads = 6
    dit.hidden = 1024

    config.features.steps = 300
    config.features.batch = 8
    config.features.learning_rate = 1.5e-3
    config.features.warmup = 30
    config.cache.batch = 16
    config.cache.shard_size = 512

    config.compute.dtype = "float32"
    config.compute.scan = False
    config.logging.every = 10
    config.logging.preview_every = 0
    config.logging.tensorboard = False
    config.checkpoint.every = 50
    return config
