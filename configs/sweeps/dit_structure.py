"""From SiT to LightningDiT, one change at a time: the paper's generator ablation at XL's size.

    fae sweep --config imagenet256_dinov2g --sweep dit_structure

The autoencoder is trained once and shared; timesteps are not shifted. Paper (unguided FID at 64, 160, 320 epochs):
SiT 2.98, 2.27, 1.98; + SwiGLU 3.02, 2.26, 1.97; + rotary positions 2.86, 2.182, 1.89; + RMSNorm 2.74, 2.15, 1.86.
The feed-forward's inner width falls from 4,608 to 3,072 with SwiGLU, which has a third matrix: the number of
parameters stays. Points are ranked by the Fréchet distance in the encoder's own features, which is no FID.
"""

from fae_jax.sweeps import Sweep, listed

UNSHIFTED = {"generator.flow_matching.train_shift": 1.0, "sampling.shift": 1.0}
SIT = {"feed_forward": "gelu_tanh", "hidden": 4608, "rotary": False, "norm": "layer"}
SWIGLU = {**SIT, "feed_forward": "swiglu", "hidden": 3072}
ROTARY = {**SWIGLU, "rotary": True}
RMS = {**ROTARY, "norm": "rms"}
STEPS = [
    {**UNSHIFTED, **{f"generator.flow_matching.dit.{name}": value for name, value in step.items()}}
    for step in (SIT, SWIGLU, ROTARY, RMS)
]


def get_sweep() -> Sweep:
    return Sweep(
        points=listed(*STEPS),
        tasks=("generation",),
        metric="generation.sets.unguided.frechet.samples_to_heldout",
        also=("generator.loss",),
    )
