"""The Inception score: are samples certain to be of some class, and of many?

With p(c | i) the softmax of the Inception network's logits of sample i, without their bias:

    IS = exp( mean over i of KL(p(· | i) ‖ q) ),   q = mean over i of p(· | i)                    (1)
    log IS = (1/n) Σᵢ Σ_c p log p − Σ_c q log q                                                   (2)

by Salimans et al. 2016 (arXiv 1606.03498), of each split of 5,000 samples in their order, and the mean over splits,
as in ADM's evaluator (openai/guided-diffusion, evaluations/evaluator.py): 50,000 samples have 10. Samples sorted by
class score lower than the same ones mixed. Sums of equation (2) are added sample by sample, so that the score does
not depend on batches, bit for bit; a split takes 8 kB.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import log_softmax, xlogy

from fae_jax.evaluation.metrics import Batch, too_few
from fae_jax.section import at_least, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class InceptionScoreSection:
    """How samples are split."""

    split: int = option(5000, "samples of a split; the score is the mean over splits", at_least(1))


class InceptionScore:
    """See the module.

    Its score: `inception_score` {value, std (over splits), splits, split (samples in each), samples, too_few (they
    make fewer than 10 splits)}.
    """

    compares = "nothing"
    higher = ("inception_score",)
    Section = InceptionScoreSection
    tap = "inception:logits"

    def __init__(self, split: int = InceptionScoreSection().split) -> None:
        self.split = split
        self._seen = 0
        self._sums: dict[int, np.ndarray] = {}  # split: Σ p(c) over samples, Σ p log p, their number

    @classmethod
    def build(cls, section: InceptionScoreSection | None, classes: Sequence[str]) -> InceptionScore:
        return cls((section or InceptionScoreSection()).split)

    def update(self, batch: Batch) -> None:
        logs = log_softmax(batch.tap(self.tap).astype(np.float64), axis=1)
        p = np.exp(logs)
        rows = np.concatenate([p, (p * logs).sum(1, keepdims=True), np.ones((len(p), 1))], axis=1)
        index = self._seen + np.arange(len(p)) if batch.index is None else batch.index
        self._seen += len(p)
        for split, row in zip((index // self.split).tolist(), rows, strict=True):
            self._add(split, row)

    def _add(self, split: int, sums: np.ndarray) -> None:
        self._sums[split] = self._sums[split] + sums if split in self._sums else sums

    def merge(self, other: InceptionScore) -> None:
        self._seen += other._seen
        for split, sums in other._sums.items():
            self._add(split, sums)

    def state(self) -> dict[str, np.ndarray]:
        return {"seen": np.asarray(self._seen), **{str(split): sums for split, sums in self._sums.items()}}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        self._seen = int(state["seen"])
        self._sums = {int(name): sums for name, sums in state.items() if name != "seen"}

    def result(self, real: Mapping[str, InceptionScore]) -> dict[str, Any]:
        if not self._sums:
            raise ValueError("the Inception score is of samples, got none")
        scores = []
        for split, (*p, entropy, count) in sorted(self._sums.items()):
            if count > self.split:
                raise ValueError(
                    f"{count:.0f} samples in split {split} of {self.split}: merged parts of a stream must say their "
                    "positions in it (Batch.index)"
                )
            q = np.asarray(p) / count
            scores.append(np.exp(entropy / count - xlogy(q, q).sum()))
        few = too_few(f"an Inception score in splits of {self.split}", {"samples": self._seen}, 10 * self.split)
        value, spread = float(np.mean(scores)), float(np.std(scores))
        counts = {"splits": len(scores), "split": self.split, "samples": self._seen, "too_few": few}
        return {"inception_score": {"value": value, "std": spread, **counts}}
