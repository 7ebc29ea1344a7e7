"""A linear classifier on frozen vectors, as DINOv2 trains it: every learning rate at once, as one vmapped run.

    logits = W v + b,   W ~ N(0, 0.01²), b = 0                                                        (1)
    SGD with momentum 0.9 on the cross-entropy, learning rate η B/256 · ½ (1 + cos(π t/T))            (2)

for 13 rates η from 1e-5 to 0.1, batches of B = 1024 and T = 12,500 steps; the rate that is best on the validation
images counts. Batches are drawn without replacement, an epoch after the other, as a function of the seed. Unlike
DINOv2's own, vectors are of one view of each image, its centre crop: nothing is augmented.

On a GPU or TPU the whole run takes minutes, so it is not interrupted and resumed but run again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

MOMENTUM = 0.9
Parts = Sequence[np.ndarray]  # vectors whose channels lie in several arrays, one after the other


def rows_of(parts: Parts, which: Any) -> np.ndarray:
    """Rows of vectors that lie in parts, float32."""
    return np.concatenate([part[which] for part in parts], axis=1, dtype=np.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Probes:
    """Classifiers trained side by side, one per learning rate.

    Attributes:
      rates: the learning rates η of equation (2), before they are scaled.
      kernel, bias: equation (1), (rates, d, classes) and (rates, classes).
    """

    rates: tuple[float, ...]
    kernel: Float[Array, "r d k"]
    bias: Float[Array, "r k"]

    def predict(self, parts: Parts, *, block: int = 4096) -> Int[np.ndarray, "r n"]:
        """The class each classifier sees in each vector."""
        blocks = [
            np.asarray(_seen(self.kernel, self.bias, rows_of(parts, slice(start, start + block))))
            for start in range(0, len(parts[0]), block)
        ]
        return np.concatenate(blocks, axis=1)

    def accuracies(self, parts: Parts, labels: Int[np.ndarray, " n"]) -> list[float]:
        """The share of vectors each classifier gives their label."""
        return [float(share) for share in (self.predict(parts) == labels).mean(axis=1)]


@jax.jit
def _seen(kernel: Array, bias: Array, vectors: Array) -> Array:
    return (jnp.einsum("nd,rdk->rnk", vectors, kernel, precision="highest") + bias[:, None]).argmax(axis=-1)


def _update(rate: Array, state: Any, vectors: Array, labels: Array, share: Array) -> Any:
    """One step of one classifier; `share` is t/T."""

    def loss(params: tuple[Array, Array]) -> Array:
        logits = jnp.matmul(vectors, params[0], precision="highest") + params[1]
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1).mean()

    params, velocity = state
    velocity = jax.tree.map(lambda v, g: MOMENTUM * v + g, velocity, jax.grad(loss)(params))
    step = 0.5 * rate * (1 + jnp.cos(jnp.pi * share))
    return jax.tree.map(lambda p, v: p - step * v, params, velocity), velocity


_step = jax.jit(jax.vmap(_update, in_axes=(0, 0, None, None, None)), donate_argnums=1)


def train_probes(
    parts: Parts,
    labels: Int[np.ndarray, " n"],
    classes: int,
    *,
    learning_rates: Sequence[float],
    steps: int,
    batch: int,
    seed: int = 0,
) -> Probes:
    """Equations (1) and (2) for every learning rate.

    Args:
      parts: the training vectors.
      labels: 0 … classes − 1.
      batch: at most all vectors.
      seed: of the first weights, which all rates share, and of the order of the vectors.
    """
    count, batch = len(labels), min(batch, len(labels))
    width = sum(part.shape[1] for part in parts)
    kernel = 0.01 * jax.random.normal(jax.random.key(seed), (width, classes))
    repeat = lambda leaf: jnp.repeat(leaf[None], len(learning_rates), axis=0)
    params = repeat(kernel), repeat(jnp.zeros(classes))
    state = params, jax.tree.map(jnp.zeros_like, params)
    rates = jnp.asarray(learning_rates, jnp.float32) * (batch / 256)
    per_epoch = max(count // batch, 1)
    for step in range(steps):
        epoch, place = divmod(step, per_epoch)
        if place == 0:
            order = np.random.default_rng((seed, epoch)).permutation(count)
        chosen = order[place * batch : (place + 1) * batch]
        vectors, targets = rows_of(parts, chosen), np.asarray(labels[chosen], np.int32)
        state = _step(rates, state, vectors, targets, jnp.float32(step / steps))
    (kernel, bias), _ = state
    return Probes(rates=tuple(learning_rates), kernel=kernel, bias=bias)
