"""The doors: a kind's name and its sizes become a compressor, or a feature decoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fae_jax.autoencoder.compressor import Compressor
from fae_jax.autoencoder.feature_decoder import FeatureDecoder, IdentityFeatureDecoder
from fae_jax.autoencoder.plain_compressors import IdentityCompressor, LinearCompressor
from fae_jax.autoencoder.posterior import PosteriorKind
from fae_jax.autoencoder.transformer_compressor import TransformerCompressor

COMPRESSORS = ("attention", "linear", "transformer", "identity")
FEATURE_DECODERS = ("transformer", "identity")
AnyCompressor = Compressor | LinearCompressor | TransformerCompressor | IdentityCompressor
AnyFeatureDecoder = FeatureDecoder | IdentityFeatureDecoder


def make_compressor(
    kind: str,
    *,
    grid: tuple[int, int],
    features: int,
    latent_width: int,
    heads: int,
    head_width: int,
    activation: str,
    depth: int,
    width: int,
    hidden: int,
    posterior: PosteriorKind,
    compute: Mapping[str, Any],
    loop: Mapping[str, Any],
) -> AnyCompressor:
    """A compressor of a kind; sizes that the kind does not have are passed over.

    Args:
      kind: one of `COMPRESSORS`.
      grid: rows and columns of tokens.
      features: channels of the encoder's features.
      latent_width: channels of the latent (identity: those of the features in any case).
      heads, head_width, activation: see `Compressor`; heads also of the transformer.
      depth, width, hidden: see `TransformerCompressor`; a width of 0 means that of the features.
      posterior: what it says of a latent.
      compute, loop: dtype and kernel; scan, remat and residual.

    Raises:
      ValueError: the kind is unknown, or heads do not divide the transformer's width.
    """
    if kind == "attention":
        return Compressor(latent_width, heads, head_width, activation, posterior, **compute)
    if kind == "linear":
        return LinearCompressor(latent_width, posterior, compute["dtype"])
    if kind == "identity":
        return IdentityCompressor(features)
    if kind != "transformer":
        raise ValueError(f"compressor {kind!r} is unknown; choose one of {', '.join(COMPRESSORS)}")
    if (width or features) % heads:
        raise ValueError(
            f"compressor.transformer.heads={heads} must divide the width of its blocks, {width or features}"
        )
    return TransformerCompressor(
        latent_width, grid, depth, width or features, heads, hidden, posterior, **compute, **loop
    )


def make_feature_decoder(
    kind: str,
    *,
    grid: tuple[int, int],
    features: int,
    depth: int,
    width: int,
    heads: int,
    hidden: int,
    last_norm: bool,
    compute: Mapping[str, Any],
    loop: Mapping[str, Any],
) -> AnyFeatureDecoder:
    """A feature decoder of a kind, one of `FEATURE_DECODERS`; a `width` of 0 means that of the features.

    Raises:
      ValueError: the kind is unknown, or heads do not divide the width.
    """
    if kind == "identity":
        return IdentityFeatureDecoder()
    if kind != "transformer":
        raise ValueError(f"feature decoder {kind!r} is unknown; choose one of {', '.join(FEATURE_DECODERS)}")
    if (width or features) % heads:
        name = "its width" if width else "the encoder's width"
        raise ValueError(f"feature_decoder.transformer.heads={heads} must divide {name} {width or features}")
    return FeatureDecoder(
        grid, features, depth, heads, hidden, last_norm, inner_width=width or features, **compute, **loop
    )
