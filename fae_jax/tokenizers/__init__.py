"""Image ↔ latent."""

from __future__ import annotations

import dataclasses

from fae_jax.section import plug

TOKENIZERS = {"fae": "fae_jax.autoencoder"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenizerSection:
    """Image ↔ latent."""

    kind: str = plug("fae", "image ↔ latent: fae", "tokenizers", TOKENIZERS)
