"""RAE (arXiv 2510.11690) as a tokenizer: the encoder's features themselves are the latent, nothing is compressed.

    image → encoder (x) → feature space (z)        z → pixel decoder → image

Stage pixels alone trains it, and not even that where `pixels.init_from` names a released decoder.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from fae_jax.autoencoder.posterior import Posterior, certain
from fae_jax.encoders import Encoder
from fae_jax.tokenizers.fae import Facts, FAETokenizer


class RAETokenizer(FAETokenizer):
    """See `fae_jax.tokenizers.Tokenizer`, and `FAETokenizer` for what it has beside it."""

    encodes = ("encoder",)
    decodes = ("pixel_decoder",)
    reconstructs = ()
    trained = {"pixel_decoder": (("pixels",), "pixel_decoder")}

    def __init__(self, config: Any, facts: Facts, encoder: Callable[[], Encoder]):
        identity = {
            name: dataclasses.replace(getattr(config, name), kind="identity")
            for name in ("compressor", "feature_decoder")
        }
        super().__init__(dataclasses.replace(config, **identity), facts, encoder)

    def identity(self, params: Mapping[str, Any]) -> dict[str, Any]:
        digest = hashlib.sha256(b"features")
        if self.space.standardise:
            digest.update(self.space.mean.tobytes() + self.space.std.tobytes())
        return {**self.encoder_identity, "compressor": digest.hexdigest()}

    def decode(self, params: Mapping[str, Any], latents: Float[Array, "b n c"]) -> Float[Array, "b y x 3"]:
        return jnp.clip(self.pixel_decoder.apply({"params": params["pixel_decoder"]}, latents), -1, 1)

    def compress(self, params: Mapping[str, Any], features: Float[Array, "b n d"]) -> Posterior:
        return certain(self.space.enter(features))

    def reconstruct_features(
        self, params: Mapping[str, Any], latents: Float[Array, "b n c"]
    ) -> Float[Array, "b n d"]:
        return self.space.leave(latents)
