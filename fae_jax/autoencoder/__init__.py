"""The contribution: compressor (features → latent posterior), feature decoder and pixel decoder."""
