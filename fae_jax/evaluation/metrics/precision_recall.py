"""Precision and recall, density and coverage: do samples lie where real images do, and everywhere they do?

With r_k(a; A) the distance of a to its k-th nearest other member of A, of real features X and those of samples Y:

    precision = mean over y of [ |y − x| ≤ r_k(x; X) for some x ]                                 (1)
    recall    = mean over x of [ |x − y| ≤ r_k(y; Y) for some y ]                                 (2)
    density   = 1/k · mean over y of the number of x with |y − x| ≤ r_k(x; X)                     (3)
    coverage  = mean over x of [ |y − x| ≤ r_k(x; X) for some y ]                                 (4)

(1) and (2) by Kynkäänniemi et al. 2019 (arXiv 1904.06991) with k = 3, as ADM's evaluator has them (openai/
guided-diffusion, evaluations/evaluator.py): in Inception's pool_3, where the reference are 10,000 images; (3) and (4)
by Naeem et al. 2020 (arXiv 2002.09797) with k = 5. All depend on the number of images on both sides. ADM takes
distances in float16, unless they overflow; here they are exact in float64, 50,000 samples against 10,000 images take
12 · 10¹² multiplications of 2,048 wide features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from fae_jax.evaluation.metrics import too_few
from fae_jax.evaluation.metrics.rows import OfRows, Rows, squared_distances

NEAREST, NEAREST_OF_DENSITY = 3, 5


def squared_radii(rows: Rows, nearest: Sequence[int]) -> Float[np.ndarray, "n k"]:
    """r_k² of each row, for each k of `nearest`."""
    most = max(nearest) + 1  # a row is the nearest to itself
    radii = np.empty((len(rows), len(nearest)))
    for where, block in rows.blocks():
        best = np.full((len(block), most), np.inf)
        for _, others in rows.blocks():
            every = np.concatenate([best, squared_distances(block, others)], axis=1)
            best = np.partition(every, most - 1, axis=1)[:, :most]
        radii[where] = np.sort(best, axis=1)[:, list(nearest)]
    return radii


class PrecisionRecall(OfRows):
    """See the module.

    Its score: `precision_recall` {precision, recall, density, coverage, space, against (see `OfRows.pair`),
    neighbours (k of precision and recall), neighbours_of_density, samples, reference (counts compared), too_few (one
    is below 1,000)}.
    """

    higher = ("precision", "recall", "density", "coverage")

    def result(self, real: Mapping[str, PrecisionRecall]) -> dict[str, Any]:
        of, samples, reference, counts = self.pair(real, "precision_recall", NEAREST_OF_DENSITY + 1)
        ours = squared_radii(samples, (NEAREST,))[:, 0]
        theirs, wide = squared_radii(reference, (NEAREST, NEAREST_OF_DENSITY)).T
        precise, recalled = np.zeros(len(samples), bool), np.zeros(len(reference), bool)
        covered, inside = np.zeros(len(reference), bool), 0
        for y, block in samples.blocks():
            for x, others in reference.blocks():
                distances = squared_distances(block, others)
                precise[y] |= (distances <= theirs[x]).any(1)
                recalled[x] |= (distances <= ours[y, None]).any(0)
                within = distances <= wide[x]
                covered[x] |= within.any(0)
                inside += int(within.sum())
        return {
            "precision_recall": {
                "precision": float(precise.mean()),
                "recall": float(recalled.mean()),
                "density": inside / (NEAREST_OF_DENSITY * len(samples)),
                "coverage": float(covered.mean()),
                **of,
                "neighbours": NEAREST,
                "neighbours_of_density": NEAREST_OF_DENSITY,
                **counts,
                "too_few": too_few("a score of precision and recall", counts, 1000),
            }
        }
