"""From SiT to LightningDiT, one change at a time: the paper's generator ablation at XL's size.

    fae sweep --config imagenet256_dinov2g --sweep dit_structure

The autoencoder is trained once and shared. Paper (unguided FID at 64, 160, 320 epochs): SiT 2.98, 2.27, 1.98;
+ SwiGLU 3.02, 2.26, 1.97; + rotary positions 2.86, 2.18, 1.89; + RMSNorm 2.74, 2.15, 1.86. The feed-forward's inner
width falls from 4,608 to 3,072 with SwiGLU, which has a third matrix: the number of parameters stays.
"""

from fae_jax.sweeps import Sweep, listed

SIT = {"dit.feed_forward": "gelu_tanh", "dit.hidden": 4608, "dit.rotary": False, "dit.norm": "layer"}
SWIGLU = {**SIT, "dit.feed_forward": "swiglu", "dit.hidden": 3072}
ROTARY = {**SWIGLU, "dit.rotary": True}
RMS = {**ROTARY, "dit.norm": "rms"}


def get_sweep() -> Sweep:
    return Sweep(
        points=listed(SIT, SWIGLU, ROTARY, RMS),
        tasks=("generation",),
        metric="generation.sets.guided.frechet.samples_to_heldout",
        better="lower",
        also=("generator.loss",),
    )
