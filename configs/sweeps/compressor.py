"""Does one attention layer do? The paper's encoder ablation: attention, linear, 4 and 6 layers, no compression.

    fae sweep --config imagenet256_dinov2g --sweep compressor

Everything after the encoder is trained for each, with the paper's generator for it, SiT without a timestep shift, and
ranked unguided as there. Paper (unguided FID at 64, 160, 320 epochs): single attention 2.98, 2.27, 1.98; linear 3.03,
2.38, 2.07; six layers 3.31, 2.47, 2.13; uncompressed 15.37, 12.99, 12.72; for four layers it prints none. Points are
ranked by the Fréchet distance in the encoder's own features, which is no FID: take the samples to the ADM suite for
one. Each is an experiment of its own in `configs/paper/` too.
"""

from fae_jax.sweeps import Sweep, listed

SIT = {
    "generator.flow_matching.dit.feed_forward": "gelu_tanh",
    "generator.flow_matching.dit.hidden": 4608,
    "generator.flow_matching.dit.rotary": False,
    "generator.flow_matching.dit.norm": "layer",
    "generator.flow_matching.train_shift": 1.0,
    "sampling.shift": 1.0,
}
LAYERS = "compressor.transformer.depth"
ENCODERS = (
    {"compressor.kind": "attention"},
    {"compressor.kind": "linear"},
    {"compressor.kind": "transformer", LAYERS: 4},
    {"compressor.kind": "transformer", LAYERS: 6},
    {"compressor.kind": "identity", "feature_decoder.kind": "identity"},
)


def get_sweep() -> Sweep:
    return Sweep(
        points=listed(*({**SIT, **encoder} for encoder in ENCODERS)),
        tasks=("probe", "reconstruction", "generation"),
        metric="generation.sets.unguided.frechet.samples_to_heldout",
        also=("features.feature_error", "generator.loss"),
    )
