"""FAE's main experiment: DINOv2-g/14, ImageNet 256×256, LightningDiT-XL/1 (arXiv 2512.07829, main results table).

    fae run --config configs/imagenet256_dinov2g.py --workdir runs/imagenet256
    fae evaluate --workdir runs/imagenet256 --task probe reconstruction generation

Expected (paper): FID 2.08 unguided, 1.70 guided at 80 epochs; 1.48 and 1.29 at 800; linear probe on x̂ 86.17 %.
Parameters: compressor 38,166,592 · feature decoder 170,428,416 · pixel decoder 305,360,896 · DiT 675,256,736.
Cost in EFLOP (computed, not measured): features 953 · pixels 556 · finetune 61 · cache 2 · generator 729, together
2,301. Chip-hours of all stages at half of a chip's bf16 peak: v4 4,648 · v5p 2,785 · v6e 1,392 · H100 or H200 1,292 ·
A100 4,097. With the features kept in a folder (`data.features`) the encoder runs once an image in the first three.
"""

from ml_collections import ConfigDict

from fae_jax.config import default_config


def get_config() -> ConfigDict:
    config = default_config()  # the defaults are this experiment's; what defines it is repeated here
    config.name = "imagenet256_dinov2g"
    config.data.source = "folder"  # one subfolder per class
    config.data.path = "data/imagenet/train"
    config.data.heldout_path = "data/imagenet/val"  # for scores and previews; may be changed later, or cleared
    config.data.image_size = 256
    config.data.classes = 1000
    config.data.workers = 16
    config.encoder.name = "dinov2_g14"  # without registers, as the paper's generation runs
    config.encoder.feature_norm = "none"  # raw final-norm features, so the encoder's own heads accept x̂
    config.compressor.latent_width = 32
    config.generator.flow_matching.train_shift = 0.4
    config.sampling.shift = 0.4
    config.compute.remat = "full"  # the generator on v5e-16: 3.3 GiB a chip (docs/scaling.md)
    return config
