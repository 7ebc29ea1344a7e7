"""The contribution: compressor (features → latent posterior), feature decoder and pixel decoder."""

from fae_jax.autoencoder.compressor import Compressor, Posterior
from fae_jax.autoencoder.feature_decoder import FeatureDecoder
from fae_jax.autoencoder.pixel_decoder import PixelDecoder

__all__ = ["Compressor", "FeatureDecoder", "PixelDecoder", "Posterior"]
