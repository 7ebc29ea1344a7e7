"""A player small enough to follow by hand: two layers, a loss that depends on every example's own key."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fae_jax.stages.pixels import PixelsSection
from fae_jax.training.optimizer import make_optimizer
from fae_jax.training.state import Player

WIDTH = 4


def section(**changes: Any) -> PixelsSection:
    """A training section of the configuration."""
    own = {"steps": 8, "batch": 12, "learning_rate": 0.05, "warmup": 0, "ema": (0.5, 0.9)}
    return PixelsSection(**{**own, **changes})


def init(key: jax.Array, width: int = WIDTH) -> dict[str, Any]:
    first, second = jax.random.split(key)
    return {
        "hidden": {"kernel": jax.random.normal(first, (width, width)), "bias": jnp.zeros(width)},
        "out": {"kernel": jax.random.normal(second, (width, 1)), "bias": jnp.ones(1)},
    }


def loss(params: Any, frozen: Any, batch: Any, keys: jax.Array, step: jax.Array) -> tuple[jax.Array, dict]:
    noise = jax.vmap(lambda key: jax.random.normal(key, batch["x"].shape[1:]))(keys)
    hidden = jnp.tanh((batch["x"] + noise) @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    out = hidden @ params["out"]["kernel"] + params["out"]["bias"]
    return jnp.mean((out[:, 0] - batch["y"]) ** 2), {"noise": jnp.mean(noise)}


def player(width: int = WIDTH, **changes: Any) -> Player:
    return Player(init=lambda key: init(key, width), loss=loss, optimizer=make_optimizer(section(**changes)))


def batch(step: int, size: int = 12, width: int = WIDTH) -> dict[str, np.ndarray]:
    """The batch of a step."""
    random = np.random.default_rng(step)
    x = random.normal(size=(size, width)).astype(np.float32)
    return {"x": x, "y": x.sum(1) + 0.1}
