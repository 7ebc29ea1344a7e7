"""Latents of digits without a network: an encoder's stand-in, its identity, writing, and batches."""

from pathlib import Path
from typing import Any

import numpy as np

from fae_jax.data.sources.digits import DigitsSource
from fae_jax.data.stores.latent_loader import LatentLoader
from fae_jax.data.stores.latent_writer import write_cache
from fae_jax.data.stores.latents import CacheIdentity, open_cache


def encode(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A stand-in for encoder and compressor that no two images and no mirrored twins share: 16 tokens of 5."""
    assert images.shape == (16, 32, 32, 3) and images.dtype == np.uint8
    blocks = images[..., 0].reshape(-1, 4, 8, 4, 8).astype(np.float32) / 255
    tokens = blocks.mean((2, 4)).reshape(-1, 16, 1)
    mean = np.concatenate([tokens * (c + 1) - c for c in range(5)], -1) + np.linspace(0, 1, 16)[:, None]
    return mean.astype(np.float32), (mean - 4).astype(np.float32)


def identity_of(images: Any, **changes: Any) -> CacheIdentity:
    settings = {"positions": "bicubic", "antialias": True}
    own = {"encoder": "vit", "encoder_weights": "aa", "encoder_settings": settings, "compressor": "bb"}
    return CacheIdentity(**{**own, "source": images.fingerprint, "image_size": 32, "flip": True, **changes})


def write(directory: Path, source: Any, **changes: Any) -> Any:
    options = {"encode": encode, "batch": 16, "shard_size": 100, **changes}
    identity = options.pop("identity", None) or identity_of(source)
    return write_cache(directory, identity, source, options.pop("encode"), **options)


def latent_batches(cache: Path, digits: DigitsSource, steps: int, start: int = 0, **options: Any) -> list:
    source = open_cache(cache, identity_of(digits))
    loader = LatentLoader(**{"source": source, "batch": 24, "seed": 7, "flip": True, **options})
    with loader.at(start) as iterator:
        return [next(iterator) for _ in range(steps)]
