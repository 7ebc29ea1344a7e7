"""A pixel decoder and its opponents small enough to step by hand: features are given, and no encoder is run."""

from contextlib import nullcontext
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from fae_jax.config import default_config
from fae_jax.losses.pixel import gan as gan_term
from fae_jax.nn.embeddings import unpatchify
from fae_jax.parallel.mesh import make_mesh
from fae_jax.stages.outline import Shapes
from fae_jax.stages.pixels import players
from fae_jax.tokenizers.fae import FAETokenizer
from fae_jax.tokenizers.feature_space import FeatureSpace
from fae_jax.training.state import Player

WIDTH, SIDE = 8, 16


class Painter:
    """A pixel decoder of two layers, which compiles in no time."""

    patch = 8

    def init(self, key: jax.Array) -> Any:
        first, second = jax.random.split(key)
        return {
            "hidden": {"kernel": jax.random.normal(first, (WIDTH, 16)) / 4},
            "to_pixels": {"kernel": jax.random.normal(second, (16, 192)) / 4, "bias": jnp.zeros(192)},
        }

    def apply(self, variables: Any, features: jax.Array, inside: bool = False) -> Any:
        params = variables["params"]
        hidden = jnp.tanh(features @ params["hidden"]["kernel"])
        images = unpatchify(hidden @ params["to_pixels"]["kernel"] + params["to_pixels"]["bias"], (2, 2), self.patch)
        return (images, hidden) if inside else images


class Tokenizer(FAETokenizer):
    """Features of 2×2 tokens in the batch, images of 16×16 pixels."""

    pixel_decoder = Painter()
    space = FeatureSpace(mean=np.zeros(WIDTH, np.float32), std=np.ones(WIDTH, np.float32), standardise=True)

    def __init__(self): ...

    def init(self, part: str, key: jax.Array) -> Any:
        return self.pixel_decoder.init(key)

    def raw_features(self, frozen: Any, batch: Any) -> Any:
        return batch["features"]


class Linear:
    """A discriminator that compiles in no time."""

    def init(self, key: jax.Array) -> Any:
        return {"out": {"kernel": 0.1 * jax.random.normal(key, (SIDE * SIDE * 3, 1))}}

    def memory(self) -> Any:
        return {}

    def logits(self, params: Any, images: Any, given: Any, memory: Any) -> Any:
        return jnp.tanh(images.reshape(len(images), -1) @ params["out"]["kernel"]), {}


def pixel_players(
    losses: tuple, *, gan: dict | None = None, linear: bool = False, **section: Any
) -> dict[str, Player]:
    """The players of stage pixels; `gan` changes that term's settings, `section` the stage's; the
    discriminator may be `Linear`."""
    config = default_config()
    config.compute.dtype = "float32"
    config.pixels.update(
        {"steps": 8, "batch": 8, "learning_rate": 1e-2, "warmup": 0, "losses": losses, "ema": (0.9,), **section}
    )
    config.pixel_losses.gan.update({"channels": 32, "stages": 1, "learning_rate": 1e-2, **(gan or {})})
    with mock.patch.object(gan_term, "PatchDiscriminator", lambda **_: Linear()) if linear else nullcontext():
        return players("pixels", Shapes(config, make_mesh(), tokenizer=Tokenizer()))


def pixel_batch(step: int, size: int = 8) -> dict[str, np.ndarray]:
    """The batch of a step."""
    random = np.random.default_rng(step)
    return {
        "features": random.normal(size=(size, 4, WIDTH)).astype(np.float32),
        "image": random.integers(0, 256, (size, SIDE, SIDE, 3), np.uint8),
    }
