"""PatchGAN's discriminator with blur-pooling and group norm, one logit per patch (TiTok, arXiv 2406.07550; STARFlow).

    h = LReLU(conv₅(x));   h ← LReLU(GroupNorm₃₂(blur(conv₃(h)))) per stage, channels d, d, 2d, 4d, …;
    logits = conv₅(LReLU(conv₁(maxpool(h))))                                                              (1)

where x is in [0, 1], LReLU has a slope of 0.1, and the last pooling leaves 16×16 patches: as in PyTorch's
AdaptiveMaxPool2d, cell i of 16 is the maximum over rows ⌊i h / 16⌋ … ⌈(i + 1) h / 16⌉ of h, also where h < 16.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fae_jax.nn.convolutions import blur_pool, convolve, group_norm, init_convolution

PATCHES, GROUPS, SLOPE = 16, 32, 0.1


def _largest(parts: Sequence[Array]) -> Array:
    # Not jnp.max: its gradient looks for the element that equals the maximum, and divides by 0 where a compiler that
    # computes the elements twice rounds them differently.
    return functools.reduce(jnp.maximum, parts)


def _adaptive_max(x: Array) -> Array:
    for axis in (1, 2):
        n = x.shape[axis]
        if n % PATCHES == 0:
            x = x.reshape(*x.shape[:axis], PATCHES, n // PATCHES, *x.shape[axis + 1 :])
            x = _largest([x.take(place, axis + 1) for place in range(n // PATCHES)])
        elif PATCHES % n == 0:
            x = x.repeat(PATCHES // n, axis)
        else:
            cells = [range(i * n // PATCHES, -(-(i + 1) * n // PATCHES)) for i in range(PATCHES)]
            x = jnp.stack([_largest([x.take(place, axis) for place in cell]) for cell in cells], axis=axis)
    return x


@dataclasses.dataclass(frozen=True, kw_only=True)
class PatchDiscriminator:
    """Equation (1).

    Attributes:
      channels: d.
      stages: how often the grid is halved.
    """

    channels: int = 128
    stages: int = 3
    dtype: Any = jnp.float32

    def init(self, key: Array) -> dict[str, Any]:
        """Fresh parameters."""
        widths = [self.channels * 2 ** max(stage - 1, 0) for stage in range(self.stages + 1)]
        keys = jax.random.split(key, self.stages + 3)
        params: dict[str, Any] = {"in": init_convolution(keys[0], 5, 3, widths[0])}
        for stage in range(self.stages):
            width = widths[stage + 1]
            params[f"stage_{stage}"] = {
                "conv": init_convolution(keys[stage + 1], 3, widths[stage], width),
                "norm": {"scale": jnp.ones(width), "bias": jnp.zeros(width)},
            }
        params["hidden"] = init_convolution(keys[-2], 1, widths[-1], widths[-1])
        return {**params, "out": init_convolution(keys[-1], 5, widths[-1], 1)}

    def memory(self) -> dict[str, Array]:
        return {}

    def logits(
        self, params: Any, images: Float[Array, "b y x 3"], given: Any, memory: Any
    ) -> tuple[Float[Array, "b n"], dict[str, Array]]:
        """Images in [−1, 1] → a logit per patch, and its next memory."""

        def active(x: Array) -> Array:
            return jax.nn.leaky_relu(x, SLOPE)

        x = active(convolve(params["in"], (images + 1) / 2, dtype=self.dtype))
        for stage in range(self.stages):
            own = params[f"stage_{stage}"]
            x = active(group_norm(own["norm"], blur_pool(convolve(own["conv"], x, dtype=self.dtype)), GROUPS))
        x = active(convolve(params["hidden"], _adaptive_max(x), dtype=self.dtype))
        return convolve(params["out"], x).reshape(len(images), -1), {}
