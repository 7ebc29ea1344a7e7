"""An extractor in the place of Inception whose every number can be said: means of blocks of pixels."""

import jax.numpy as jnp
from einops import reduce

from fae_jax.extractors import Extractor


def build(name: str, weights: str) -> Extractor:
    def apply(params, images):
        values = reduce(images.astype(jnp.float32), "b (y p) (x q) c -> b (y x c)", "mean", y=2, x=2) * params["by"]
        return {"pool_3": values, "spatial": values[:, :6], "logits": values[:, :5]}

    return Extractor(
        name=name, variant="means of blocks", weights_hash=HASH, params={"by": jnp.ones(())}, apply=apply
    )


HASH = "1" * 64
