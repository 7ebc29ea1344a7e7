"""STARFlow on FAE's latents of ImageNet 256×256: 256 tokens of 32 channels (arXiv 2512.07829, its STARFlow table).

    fae run --config imagenet256_starflow --workdir runs/starflow
    fae evaluate --workdir runs/starflow --task generation guidance

Expected (paper): FID 2.67 at 400 epochs, where the same flow on SD-VAE's latents has 4.51.
Parameters: 1,413,286,464 (1.4 B in the paper); everything before the generator is the main experiment's.
Cost: 1,136 EFLOP of the generator, 2,708 in all stages (computed, not measured; 638 hours of an H100 at half of its
bf16 peak for the generator). A guided sample takes 1,800 evaluations of single blocks on one token each, with its
decoding 3.5 TFLOP, where the main experiment's takes 101. The generator on v5e-16: 6.6 GiB a chip (compiled only).
Neither paper prints all of the schedule or the weight of guidance here: optimizer and noise are the defaults of the
authors' code (apple/ml-starflow), the batch is the main experiment's, the weight a first guess.
"""

from ml_collections import ConfigDict

from fae_jax.config import load_config


def get_config() -> ConfigDict:
    config = load_config("imagenet256_dinov2g")
    config.name = "imagenet256_starflow"
    generator = config.generator
    generator.kind = "starflow"  # its defaults are the setting of 1.4 B parameters
    generator.steps = 1_000_912  # 400 epochs
    generator.schedule = "cosine"
    generator.warmup = 2502  # an epoch
    generator.betas = (0.9, 0.95)
    generator.weight_decay = 1e-4
    config.sampling.guidance = ((0.0, 1.0, 2.0),)  # one weight for all tokens
    config.sampling.batch = 64
    return config
