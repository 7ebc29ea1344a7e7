"""Tokenizers: images to latents and back. The contract, and the table of kinds.

A kind is one file here, or an entry point in the group `fae_jax.tokenizers` of another package: a class with

    Section     its part of the configuration, `tokenizer.<kind>`, a frozen dataclass of options; None for none
    build(config, facts) → a `Tokenizer`
    outline(config) → one whose parts have shapes and no weights: what `fae compile` uses
    trained     see `Tokenizer`

`facts` are what its stages have found out (`fae_jax.tokenizers.fae.Facts`), or None where no stage trains it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Array, Float

from fae_jax.autoencoder.posterior import Posterior
from fae_jax.kinds import find
from fae_jax.section import plug

TOKENIZERS = {
    "fae": "fae_jax.tokenizers.fae:FAETokenizer",
    "rae": "fae_jax.tokenizers.rae:RAETokenizer",
    "autoencoder_kl": "fae_jax.tokenizers.convolutional:KLTokenizer",
    "taesd": "fae_jax.tokenizers.convolutional:TinyTokenizer",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenizerSection:
    """Image ↔ latent."""

    kind: str = plug(
        "fae",
        "image ↔ latent: fae, rae (features uncompressed), or published: autoencoder_kl (SD-VAE, VA-VAE), taesd",
        "tokenizers",
        TOKENIZERS,
    )


@runtime_checkable
class Tokenizer(Protocol):
    """Pure functions of parameters, by part: {"compressor": …, "pixel_decoder": …}; each reads only what it needs.

    Attributes:
      grid: rows and columns of a latent's tokens.
      channels: of a latent.
      encodes, decodes: names of the parts that `encode` and `decode` read.
      trained: part → (stages that train it, the last one counts; path in that stage's parameters); parts that
        are not named are loaded.
    """

    grid: tuple[int, int]
    channels: int
    encodes: tuple[str, ...]
    decodes: tuple[str, ...]
    trained: Mapping[str, tuple[tuple[str, ...], str]]

    def load(self, part: str) -> Any:
        """The published parameters of a part that no stage trains.

        Raises:
          ValueError, FileNotFoundError, OSError: they are not there, or of something else.
        """
        ...

    def shapes(self, part: str) -> Any:
        """`jax.ShapeDtypeStruct`s in place of a part's parameters; reads no weights."""
        ...

    def identity(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """What decides a latent beside the image, as `CacheIdentity` names it: `encoder`, `encoder_weights`,
        `encoder_settings`, `compressor`."""
        ...

    def encode(self, params: Mapping[str, Any], images: Float[Array, "b y x 3"]) -> Posterior:
        """Images in [−1, 1] → the posterior of their latents, (b, n, c)."""
        ...

    def decode(self, params: Mapping[str, Any], latents: Float[Array, "b n c"]) -> Float[Array, "b y x 3"]:
        """Latents → images, clipped to [−1, 1]."""
        ...


def tokenizer_kind(config: Any) -> Any:
    """The class behind `tokenizer.kind`."""
    return find("tokenizers", TOKENIZERS, config.tokenizer.kind)
