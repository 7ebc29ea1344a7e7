"""What fae_jax asks of an encoder, for the network beside this file."""

import jax.numpy as jnp
import numpy as np

from fae_inception.network import features, head
from fae_jax.encoders import Encoder, EncoderOutput
from fae_jax.nn.resample import resize
from fae_jax.weights import hash_tree

SIDE, GRID, WIDTH = 288, (16, 16), 768


def build(*, weights, image_size, dtype="float32", kernel="auto", scan=False):
    """Reads `weights`, an .npz of folded convolutions; images of any size are resized to 288×288."""
    if weights is None:
        raise FileNotFoundError("the encoder 'inception' needs its weights: set encoder.weights to the .npz file")
    with np.load(weights, allow_pickle=False) as archive:
        layers = {name.removesuffix("/w") for name in archive.files if name.endswith("/w")}
        params = {name: {k: jnp.asarray(archive[f"{name}/{k}"], jnp.float32) for k in "wb"} for name in layers}

    def apply(params, pixels):
        found = features(params, pixels.astype(dtype)).astype(jnp.float32)
        return EncoderOutput(found.reshape(len(found), -1, WIDTH))

    return Encoder(
        name="inception",
        apply=apply,
        params=params,
        preprocess=lambda images: resize(images, (SIDE, SIDE), "bicubic"),
        grid=GRID,
        width=WIDTH,
        weights_hash=hash_tree(params),
        settings={"input_size": SIDE, "resize": "bicubic_antialias", "map": "mixed_7 before its ReLU"},
        pool=lambda params, patches, _: head(params, patches.reshape(len(patches), *GRID, WIDTH)),
    )
