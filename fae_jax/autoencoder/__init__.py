"""The contribution: compressor (features → latent posterior), feature decoder and pixel decoder."""

from fae_jax.autoencoder.compressor import Compressor
from fae_jax.autoencoder.feature_decoder import FeatureDecoder, IdentityFeatureDecoder
from fae_jax.autoencoder.kinds import make_compressor, make_feature_decoder
from fae_jax.autoencoder.pixel_decoder import PixelDecoder
from fae_jax.autoencoder.plain_compressors import IdentityCompressor, LinearCompressor
from fae_jax.autoencoder.posterior import Posterior, PosteriorKind
from fae_jax.autoencoder.transformer_compressor import TransformerCompressor

__all__ = [
    "Compressor",
    "FeatureDecoder",
    "IdentityCompressor",
    "IdentityFeatureDecoder",
    "LinearCompressor",
    "PixelDecoder",
    "Posterior",
    "PosteriorKind",
    "TransformerCompressor",
    "make_compressor",
    "make_feature_decoder",
]
