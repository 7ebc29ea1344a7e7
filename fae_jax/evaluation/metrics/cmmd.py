"""CMMD: the maximum mean discrepancy of CLIP's embeddings.

With the kernel k(x, y) = exp(−|x − y|² / 2σ²), σ = 10, of embeddings of length 1,

    CMMD = 1000 · ( mean k(x, x′) + mean k(y, y′) − 2 mean k(x, y) )                              (1)

over all pairs, those of an image with itself included: biased, but little for many images (Jayasumana et al. 2024,
arXiv 2401.09603, google-research/cmmd). The network is CLIP ViT-L/14 at 336.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fae_jax.evaluation.metrics import too_few
from fae_jax.evaluation.metrics.rows import OfRows, Rows, squared_distances

SIGMA, SCALE = 10.0, 1000.0


def mean_kernel(first: Rows, second: Rows) -> float:
    """The mean of k over all pairs of rows, each made of length 1."""
    total = 0.0
    for _, block in first.blocks():
        for _, others in second.blocks():
            units = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (block, others))
            total += float(np.exp(squared_distances(*units) / (-2.0 * SIGMA**2)).sum())
    return total / (len(first) * len(second))


class Cmmd(OfRows):
    """See the module.

    Its score: `cmmd` {value, space, against (see `OfRows.pair`), sigma, scale, samples, reference (counts), too_few
    (there are fewer than 1,000)}.
    """

    Section = None
    tap = "clip_l14_336:pooled"

    def result(self, real: Mapping[str, Cmmd]) -> dict[str, Any]:
        of, samples, reference, counts = self.pair(real, "cmmd", 1)
        within = mean_kernel(samples, samples) + mean_kernel(reference, reference)
        value = SCALE * (within - 2.0 * mean_kernel(samples, reference))
        how = {**of, "sigma": SIGMA, "scale": SCALE, **counts}
        return {"cmmd": {"value": value, **how, "too_few": too_few("CMMD", counts, 1000)}}
