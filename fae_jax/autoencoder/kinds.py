"""The doors: sections become a compressor and a feature decoder.

A compressor is a Flax module, features (b, n, d) → `Posterior`, with `latent_width` and a `build` as in
`make_compressor`; a feature decoder one of latents (b, n, c) → features (b, n, d), float32.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from fae_jax.autoencoder.posterior import PosteriorKind
from fae_jax.kinds import find
from fae_jax.nn.compute import ComputeSection
from fae_jax.section import at_least, option, plug, subsection

COMPRESSORS = {
    "attention": "fae_jax.autoencoder.compressors:Compressor",
    "linear": "fae_jax.autoencoder.compressors:LinearCompressor",
    "transformer": "fae_jax.autoencoder.compressors:TransformerCompressor",
    "identity": "fae_jax.autoencoder.compressors:IdentityCompressor",
    "pooling": "fae_jax.autoencoder.compressors:PoolingCompressor",
}
FEATURE_DECODERS = {
    "transformer": "fae_jax.autoencoder.decoders:FeatureDecoder",
    "identity": "fae_jax.autoencoder.decoders:IdentityFeatureDecoder",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompressorSection:
    """From features to latents."""

    kind: str = plug(
        "attention",
        "attention (one layer, the paper's), linear, transformer, pooling or identity",
        "compressors",
        COMPRESSORS,
    )
    latent_width: int = option(32, "channels of the latent (identity: the encoder's)", at_least(1))
    posterior: PosteriorKind = subsection(PosteriorKind)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureDecoderSection:
    """From latents to features."""

    kind: str = plug(
        "transformer",
        "transformer, or identity: goes with an identity compressor alone",
        "feature_decoders",
        FEATURE_DECODERS,
    )


def make_compressor(section: Any, *, grid: tuple[int, int], width: int, compute: ComputeSection) -> Any:
    """The compressor that a `CompressorSection` describes.

    Args:
      grid: rows and columns of tokens.
      width: channels of the encoder's features.

    Raises:
      ValueError: the kind is unknown, or sizes do not divide.
    """
    kind = find("compressors", COMPRESSORS, section.kind)
    return kind.build(section, grid=grid, width=width, compute=compute)


def make_feature_decoder(section: Any, *, grid: tuple[int, int], width: int, compute: ComputeSection) -> Any:
    """The feature decoder that a `FeatureDecoderSection` describes; arguments and errors as in `make_compressor`."""
    kind = find("feature_decoders", FEATURE_DECODERS, section.kind)
    return kind.build(section, grid=grid, width=width, compute=compute)
