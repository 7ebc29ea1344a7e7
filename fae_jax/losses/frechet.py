"""The Fréchet distance as a loss (FD-loss, arXiv 2604.28190): of features of samples from those of real images.

Of samples with mean μ and covariance Σ = Kᵀ K, and a reference with μ_r and Σ_r = A Aᵀ:

    d² = ‖μ − μ_r‖² + tr Σ + tr Σ_r − 2 tr (Σ_r^½ Σ Σ_r^½)^½
       = ‖μ − μ_r‖² + ‖K‖² + tr Σ_r − 2 Σᵢ σᵢ(K A)                                       (1)

With Q the orthogonal factor of K A = U S Vᵀ,

    Σᵢ σᵢ(K A) = ⟨Q, K A⟩ = max ⟨P, K A⟩ over P with ‖P‖₂ ≤ 1,   Q = U Vᵀ               (2)

so that the slope of (1) at K is 2 (K − Q Aᵀ), Q held fixed: no 1/√λ and no 1/(λᵢ − λⱼ), and so nothing to regularise.
Singular values below the largest times the precision count as zero, in the value and in Q. They are found to within
that; as roots of eigenvalues of Σ_r^½ Σ Σ_r^½ they would be to within its root, which is too little in float32.

A batch X alone has too few samples. Either the last `length` features F, the batch among them, are kept,

    K = (F − μ) / √(n − 1)                                                               (3)

or moving moments, with the weight w = max(1 − decay, b / samples so far) of a batch of b with mean m:

    μ = μ' + w (m − μ'),   K = [√(1−w) K'; √(w/b) (X − m); √(w (1−w)) (m − μ')ᵀ]          (4)

where K' is the triangular factor of the K before, which has the same Kᵀ K. Only the batch passes slopes on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

MOST = 2**30  # samples counted; far beyond what weighs anything in (4)


def frechet_loss(
    mean: Float[Array, " d"],
    root: Float[Array, "n d"],
    reference_mean: Float[Array, " d"],
    reference_root: Float[Array, "d r"],
) -> Float[Array, ""]:
    """d² of equation (1).

    Args:
      mean, root: μ and K.
      reference_mean, reference_root: μ_r and A.
    """
    both = jnp.matmul(root, reference_root, precision="highest")
    shared = jnp.sum(_orthogonal(jax.lax.stop_gradient(both)) * both)
    return jnp.sum((mean - reference_mean) ** 2) + jnp.sum(root**2) + jnp.sum(reference_root**2) - 2 * shared


def _orthogonal(matrix: Float[Array, "n r"]) -> Float[Array, "n r"]:
    """Q of equation (2)."""
    basis, triangle = jnp.linalg.qr(matrix)
    left, values, right = jnp.linalg.svd(triangle, full_matrices=False)
    kept = values > values[0] * jnp.finfo(matrix.dtype).eps
    turn = jnp.matmul(left * kept, right, precision="highest")
    return jnp.matmul(basis, turn, precision="highest")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MovingSamples:
    """The samples whose moments count: equation (3), or where `decay` is above 0 equation (4).

    Attributes:
      length: samples that are drawn before any slope is of use: those kept, or those that moving moments begin with.
      decay: of moving moments; 0 for none.
    """

    length: int
    decay: float = 0.0

    def start(self, width: int) -> dict[str, Array]:
        """The memory before the first batch of features `width` wide."""
        kept = {"mean": jnp.zeros(width), "root": jnp.zeros((width, width))}
        kept = kept if self.decay else {"features": jnp.zeros((self.length, width))}
        return {**kept, "count": jnp.zeros((), jnp.int32)}

    def add(
        self, memory: Mapping[str, Array], features: Float[Array, "b d"]
    ) -> tuple[Float[Array, " d"], Float[Array, "n d"], dict[str, Any]]:
        """μ and K with the batch among them, and the next memory."""
        count = jnp.minimum(memory["count"] + len(features), MOST)
        if self.decay:
            weight = jnp.maximum(1 - self.decay, len(features) / count.astype(features.dtype))
            centre = features.mean(0)
            step = centre - memory["mean"]
            parts = [
                jnp.sqrt(1 - weight) * memory["root"],
                jnp.sqrt(weight / len(features)) * (features - centre),
                jnp.sqrt(weight * (1 - weight)) * step[None],
            ]
            mean, root = memory["mean"] + weight * step, jnp.concatenate(parts)
            kept = {"mean": mean, "root": jnp.linalg.qr(jax.lax.stop_gradient(root), mode="r")}
        else:
            held = jnp.concatenate([memory["features"][len(features) :], features])
            number = jnp.minimum(count, self.length).astype(features.dtype)
            there = (jnp.arange(self.length) >= self.length - number)[:, None]
            mean = jnp.sum(held * there, 0) / number
            root = (held - mean) * there / jnp.sqrt(jnp.maximum(number - 1, 1))
            kept = {"features": held}
        return mean, root, jax.lax.stop_gradient({**kept, "count": count})

    def is_full(self, memory: Mapping[str, Array]) -> Array:
        """Whether `length` samples have been seen."""
        return memory["count"] >= self.length
