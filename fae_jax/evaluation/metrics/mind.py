"""MIND: the sliced Wasserstein distance of Inception's features.

Along a direction u the best match of n samples x with n real ones y is in the order of their projections, and

    MIND = 3d · mean over u, j of ( sort(uᵀx)_j − sort(uᵀy)_j )²                                  (1)

over 1,000 random unit directions u in d dimensions (Berthet et al. 2026, arXiv 2605.06797). Of the larger set n are
chosen at random. A set and itself are at 0, and a set and itself moved by μ at 3|μ|² on average over u.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from fae_jax.evaluation.metrics import too_few
from fae_jax.evaluation.metrics.rows import BLOCK, OfRows, Rows

DIRECTIONS, SEED = 1000, 2020
AT_ONCE = 100  # directions, so that 50,000 projections take 40 MB


def sliced_distance(
    first: Float[np.ndarray, "n m"], second: Float[np.ndarray, "n m"], dimensions: int
) -> Float[np.ndarray, " m"]:
    """Equation (1) of each direction, from projections onto it."""
    return 3.0 * dimensions * np.mean((np.sort(first, axis=0) - np.sort(second, axis=0)) ** 2, axis=0)


class Mind(OfRows):
    """See the module.

    Its score: `mind` {value, space, against (see `OfRows.pair`), directions, seed, compared (images on each side),
    samples, reference (counts), too_few (there are fewer than 1,000)}.
    """

    def result(self, real: Mapping[str, Mind]) -> dict[str, Any]:
        of, samples, reference, counts = self.pair(real, "mind", 1)
        random, n, width = np.random.default_rng(SEED), min(counts.values()), samples.width
        units = random.normal(size=(width, DIRECTIONS))
        units /= np.linalg.norm(units, axis=0)
        chosen = [np.sort(random.choice(len(rows), n, replace=False)) for rows in (samples, reference)]

        def projected(rows: Rows, where: np.ndarray, onto: np.ndarray) -> np.ndarray:
            return np.concatenate([rows.take(where[start : start + BLOCK]) @ onto for start in range(0, n, BLOCK)])

        values = [
            sliced_distance(projected(samples, chosen[0], onto), projected(reference, chosen[1], onto), width)
            for onto in np.split(units, DIRECTIONS // AT_ONCE, axis=1)
        ]
        how = {**of, "directions": DIRECTIONS, "seed": SEED, "compared": n}
        few = too_few("MIND", counts, 1000)
        return {"mind": {"value": float(np.mean(values)), **how, **counts, "too_few": few}}
