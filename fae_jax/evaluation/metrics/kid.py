"""KID: the maximum mean discrepancy of Inception's features, unbiased whatever the number of samples.

With the kernel k(x, y) = (xᵀy/d + 1)³, of m samples x and m real ones y

    MMD² = Σ_{i≠j} k(xᵢ, xⱼ) / m(m−1) + Σ_{i≠j} k(yᵢ, yⱼ) / m(m−1) − 2 Σ_{i,j} k(xᵢ, yⱼ) / m²    (1)

and KID its mean over 100 random subsets of m = 1,000 (Bińkowski et al. 2018, arXiv 1801.01401), drawn as
torch-fidelity draws them: by NumPy's RandomState(2020), without replacement. Sets of one kind are a little above or
below 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from fae_jax.evaluation.metrics import too_few
from fae_jax.evaluation.metrics.rows import OfRows, Rows

SUBSETS, SIZE, SEED = 100, 1000, 2020


def kernel(first: Float[np.ndarray, "m d"], second: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "m m"]:
    """k of every pair."""
    values = first @ second.T / first.shape[1] + 1.0
    return values * values * values  # many times as fast as ** 3


def squared_discrepancy(first: Float[np.ndarray, "m d"], second: Float[np.ndarray, "m d"]) -> float:
    """Equation (1)."""
    m = len(first)
    within = sum(values.sum() - np.trace(values) for values in (kernel(first, first), kernel(second, second)))
    return float(within / (m * (m - 1)) - 2.0 * kernel(first, second).mean())


class Kid(OfRows):
    """See the module.

    Its score: `kid` {value, std (over subsets), space, against (see `OfRows.pair`), subsets, size (of each; all,
    where there are fewer), seed, samples, reference (counts), too_few (there are fewer than 1,000)}.
    """

    def result(self, real: Mapping[str, Kid]) -> dict[str, Any]:
        of, samples, reference, counts = self.pair(real, "kid", 2)
        size, random = min(SIZE, *counts.values()), np.random.RandomState(SEED)

        def subset(rows: Rows) -> np.ndarray:
            return rows.take(random.choice(len(rows), size, replace=False))

        values = [squared_discrepancy(subset(samples), subset(reference)) for _ in range(SUBSETS)]
        few = too_few(f"KID in subsets of {SIZE}", counts, SIZE)
        how = {**of, "subsets": SUBSETS, "size": size, "seed": SEED, **counts, "too_few": few}
        return {"kid": {"value": float(np.mean(values)), "std": float(np.std(values)), **how}}
