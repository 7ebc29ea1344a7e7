"""Heads on a frozen DINO as a discriminator, one logit per token and head (StyleGAN-T, arXiv 2301.09515; VAR; RAE).

    a = Φ(conv₁(x));   a ← (Φ'(a) + a) / √2 with Φ' over 9 tokens;   logits = conv₁(a)                       (1)

for x the patch tokens behind the last block and behind blocks 3, 6, 9 and 12, a head each. Φ is a convolution along
the tokens, whose ends meet, a norm of each channel over the tokens of one image, and a leaky ReLU of slope 0.2. Every
kernel is divided by its largest singular value σ (spectral norm, arXiv 1802.05957), of which the memory holds the
left vector u:

    v = Wᵀu / ‖Wᵀu‖;   u ← W v / ‖W v‖;   σ = uᵀ W v,   one iteration a step, W (out, in · size)             (2)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fae_jax.extractors.dino import DINO, DINO_S8
from fae_jax.nn.dense import precision

BLOCKS = (-1, 2, 5, 8, 11)
SLOPE, EPSILON = 0.2, 1e-6


def spectral(
    kernel: Float[Array, "k c d"], u: Float[Array, " d"]
) -> tuple[Float[Array, "k c d"], Float[Array, " d"]]:
    """(W / σ, the next u) of (2); u and v are constants to the gradient."""
    matrix = kernel.reshape(-1, kernel.shape[-1]).T
    fixed = jax.lax.stop_gradient(matrix)

    def unit(x: Array) -> Array:
        return x / jnp.maximum(jnp.linalg.norm(x), 1e-12)

    v = unit(jnp.matmul(fixed.T, u, precision="highest"))
    u = unit(jnp.matmul(fixed, v, precision="highest"))
    sigma = jnp.sum(u * jnp.matmul(matrix, v, precision="highest"))
    return kernel / sigma, u


def _convolve(params: Any, x: Float[Array, "b n c"], u: Array, dtype: Any) -> tuple[Array, Array]:
    kernel, u = spectral(params["kernel"], u)
    reach = kernel.shape[0] // 2
    x = jnp.pad(x, ((0, 0), (reach, reach), (0, 0)), mode="wrap").astype(dtype)
    y = jax.lax.conv_general_dilated(
        x, kernel.astype(dtype), (1,), "VALID", dimension_numbers=("NWC", "WIO", "NWC"), precision=precision(dtype)
    )
    return y.astype(jnp.float32) + params["bias"], u


def _active(params: Any, x: Float[Array, "b n c"], u: Array, dtype: Any) -> tuple[Array, Array]:
    """Φ."""
    y, u = _convolve(params["conv"], x, u, dtype)
    centred = y - y.mean(1, keepdims=True)
    normed = centred * jax.lax.rsqrt((centred**2).mean(1, keepdims=True) + EPSILON)
    return jax.nn.leaky_relu(normed * params["norm"]["scale"] + params["norm"]["bias"], SLOPE), u


@dataclasses.dataclass(frozen=True, kw_only=True)
class DinoDiscriminator:
    """Equation (1).

    Attributes:
      size: tokens that Φ' sees.
      compute: attributes of `fae_jax.encoders.vit.Trunk`.
    """

    size: int = 9
    dino: DINO = DINO_S8
    compute: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def sizes(self) -> dict[str, int]:
        return {"first": 1, "second": self.size, "out": 1}

    def init(self, key: Array) -> dict[str, Any]:
        """Fresh parameters."""
        width = self.dino.config.width

        def layer(key: Array, size: int, channels: int) -> dict[str, Array]:
            bound = 1 / np.sqrt(size * width)
            kernel = jax.random.uniform(key, (size, width, channels), minval=-bound, maxval=bound)
            return {"kernel": kernel, "bias": jnp.zeros(channels)}

        def head(key: Array) -> dict[str, Any]:
            keys = jax.random.split(key, 3)
            norm = {"scale": jnp.ones(width), "bias": jnp.zeros(width)}
            return {
                "first": {"conv": layer(keys[0], 1, width), "norm": norm},
                "second": {"conv": layer(keys[1], self.size, width), "norm": norm},
                "out": layer(keys[2], 1, 1),
            }

        return {f"head_{place}": head(each) for place, each in enumerate(jax.random.split(key, len(BLOCKS)))}

    def memory(self) -> dict[str, Any]:
        """u of every kernel, drawn once and for all."""
        key, width = jax.random.key(0), self.dino.config.width
        made = {}
        for place in range(len(BLOCKS)):
            drawn = jax.random.normal(jax.random.fold_in(key, place), (2, width))
            first, second = drawn / jnp.linalg.norm(drawn, axis=1, keepdims=True)
            made[f"head_{place}"] = {"first": first, "second": second, "out": jnp.ones(1)}
        return made

    def logits(
        self, params: Any, images: Float[Array, "b y x 3"], given: Any, memory: Any
    ) -> tuple[Float[Array, "b n"], dict[str, Any]]:
        """Images in [−1, 1] → a logit per token and head, and the next memory."""
        dtype = self.compute.get("dtype", jnp.float32)
        seen = self.dino.tokens(given[self.dino.name], images, BLOCKS, **self.compute)
        logits, kept = [], {}
        for (name, own), tokens in zip(sorted(params.items()), seen, strict=True):
            u = memory[name]
            a, first = _active(own["first"], tokens[:, self.dino.config.prefix :], u["first"], dtype)
            b, second = _active(own["second"], a, u["second"], dtype)
            y, out = _convolve(own["out"], (a + b) * 2**-0.5, u["out"], jnp.float32)
            logits.append(y[..., 0])
            kept[name] = {"first": first, "second": second, "out": out}
        return jnp.concatenate(logits, axis=1), kept
