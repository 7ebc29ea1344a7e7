"""How images, positions, times and labels become vectors.

Positions. For token (y, x) of a grid, head width d and frequencies f_i = 10000^(−4i/d), i < d/4:

    rotary angle   (y f_0, y f_0, y f_1, y f_1, …, x f_0, x f_0, …)          (1)
    rotation of a pair (a, b) by angle θ:  (a cos θ − b sin θ, a sin θ + b cos θ)

Pairs are neighbouring channels and the first half of the channels carries y, as in EVA-02
(arXiv 2303.11331) and LightningDiT (arXiv 2501.01423).

Times. For t in [0, 1], a scale k and frequencies f_i = 10000^(−i/128), i < 128:

    time embedding (cos k t f_0, …, cos k t f_127, sin k t f_0, …)            (2)

SiT and LightningDiT feed t as it is (k = 1); networks that count a thousand steps have k = 1000.
"""

from __future__ import annotations

import functools

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Array, Float, Int

from fae_jax.nn.dense import Dense

Rotary = tuple[Float[Array | np.ndarray, "n e"], Float[Array | np.ndarray, "n e"]]  # cosines and sines, e per head


def patchify(images: Float[Array, "b height width channels"], patch: int) -> Float[Array, "b n p"]:
    """Cuts images into (height/patch)·(width/patch) tokens of patch·patch·channels values, row by row."""
    return rearrange(images, "b (y p) (x q) c -> b (y x) (p q c)", p=patch, q=patch)


def unpatchify(tokens: Float[Array, "b n p"], grid: tuple[int, int], patch: int) -> Float[Array, "b h w c"]:
    """Inverse of `patchify` for a grid of (rows, columns) tokens."""
    y, x = grid
    return rearrange(tokens, "b (y x) (p q c) -> b (y p) (x q) c", y=y, x=x, p=patch, q=patch)


def sincos_table(width: int, grid: tuple[int, int], extent: int = 0) -> Float[np.ndarray, "n d"]:
    """The fixed 2-D sine-cosine position table of MAE, DiT and SiT; the first half of the channels carries x.

    Args:
      extent: rows and columns count from 0 to so many, whatever the grid; 0 = to the grid's own.

    Raises:
      ValueError: `width` is not a multiple of 4.
    """
    if width % 4:
        raise ValueError(f"a 2-D sine-cosine table needs a width that is a multiple of 4, got {width}")
    frequencies = 10000.0 ** (-np.arange(width // 4, dtype=np.float64) / (width / 4))
    places = (np.arange(side) * ((extent or side) / side) for side in grid)
    rows, columns = np.meshgrid(*places, indexing="ij")

    def encode(position: np.ndarray) -> np.ndarray:
        angle = np.outer(position.reshape(-1), frequencies)
        return np.concatenate([np.sin(angle), np.cos(angle)], axis=1)

    return np.concatenate([encode(columns), encode(rows)], axis=1).astype(np.float32)


def rotary_table(
    head_width: int, grid: tuple[int, int], *, theta: float = 10000.0, prefix: int = 0, unit: bool = False
) -> Rotary:
    """Cosine and sine of the angles of equation (1); `prefix` tokens in front of the grid are not rotated.

    Args:
      theta: in the place of 10000.
      unit: as in DINOv3, row y of n (and so a column) counts as its centre in (−1, 1), 2 (y + ½)/n − 1, times 2π.

    Raises:
      ValueError: `head_width` is not a multiple of 4.
    """
    if head_width % 4:
        raise ValueError(f"2-D rotary positions need a head width that is a multiple of 4, got {head_width}")
    frequencies = theta ** (-4 * np.arange(head_width // 4, dtype=np.float64) / head_width)
    places = np.meshgrid(*(2 * (np.arange(n) + 0.5) / n - 1 if unit else np.arange(n) for n in grid), indexing="ij")
    halves = [np.outer(place.reshape(-1), np.repeat(frequencies, 2)) for place in places]
    turns = (2 * np.pi if unit else 1) * np.concatenate(halves, axis=1)
    angle = np.concatenate([np.zeros((prefix, head_width)), turns])
    return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


def apply_rotary(
    x: Float[Array, "b n h d"], cosine: Float[Array | np.ndarray, "n d"], sine: Float[Array | np.ndarray, "n d"]
) -> Float[Array, "b n h d"]:
    """Rotates neighbouring channel pairs of queries or keys, in float32, by the angles of `rotary_table`."""
    pairs = rearrange(x.astype(jnp.float32), "b n h (d two) -> b n h d two", two=2)
    turned = jnp.stack([-pairs[..., 1], pairs[..., 0]], axis=-1).reshape(x.shape)
    rotated = x.astype(jnp.float32) * cosine[None, :, None] + turned * sine[None, :, None]
    return rotated.astype(x.dtype)


class TimeEmbedding(nn.Module):
    """Equation (2), then a two-layer SiLU network, all in float32: (b,) times in [0, 1] → (b, width).

    Several numbers of each example, (b, k), have such a network each, whose results are added; that of the first is
    the time's.

    Attributes:
      width: channels of the result.
      scale: k of equation (2).
    """

    width: int
    scale: float = 1000.0

    @nn.compact
    def __call__(self, time: Float[Array, "b ..."]) -> Float[Array, "b d"]:
        rates = jnp.exp(-np.log(10000.0) * jnp.arange(128, dtype=jnp.float32) / 128)
        init = nn.initializers.normal(0.02)

        def embedded(number: Float[Array, " b"], which: str) -> Float[Array, "b d"]:
            angle = self.scale * number.astype(jnp.float32)[:, None] * rates[None]
            signal = jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)
            hidden = nn.silu(Dense(self.width, kernel_init=init, name=f"hidden{which}")(signal))
            return Dense(self.width, kernel_init=init, name=f"out{which}")(hidden)

        if time.ndim == 1:
            return embedded(time, "")
        each = (embedded(time[:, i], f"_{i}" if i else "") for i in range(time.shape[1]))
        return functools.reduce(jnp.add, each)


def check_tokens(tokens: int, grid: tuple[int, int]) -> None:
    """Says so when a network built for `grid` is given another number of tokens.

    Raises:
      ValueError: `tokens` is not rows · columns.
    """
    if tokens != grid[0] * grid[1]:
        raise ValueError(f"got {tokens} tokens where the grid is {grid[0]}×{grid[1]} = {grid[0] * grid[1]}")


class LabelEmbedding(nn.Module):
    """One vector per class and a last one for "no class", the index `classes`: (b,) int → (b, width)."""

    classes: int
    width: int

    @nn.compact
    def __call__(self, label: Int[Array, " b"]) -> Float[Array, "b d"]:
        table = self.param("table", nn.initializers.normal(0.02), (self.classes + 1, self.width))
        return jnp.take(table, label, axis=0)


class PositionTable(nn.Module):
    """A learned vector per token, added: (b, n, d) → (b, n, d)."""

    tokens: int

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        table = self.param("table", nn.initializers.truncated_normal(0.02), (self.tokens, x.shape[-1]))
        return x + table[None].astype(x.dtype)
