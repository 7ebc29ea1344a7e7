"""The Inception score against equation (1) written out, by any batches and parts."""

import dataclasses
import math

import numpy as np
import pytest
from feature_streams import taken
from scipy.special import softmax

from fae_jax.evaluation.metrics.inception_score import InceptionScore, InceptionScoreSection

LOGITS = "inception:logits"


@dataclasses.dataclass
class Sections:
    inception_score: InceptionScoreSection


def scored(logits: np.ndarray, split: int, **how) -> dict:
    section = Sections(InceptionScoreSection(split=split))
    return taken("inception_score", {LOGITS: logits}, section=section, **how).result({})["inception_score"]


def stated(logits: np.ndarray) -> float:
    """Equation (1) of one split, divergence by divergence."""
    p = softmax(np.asarray(logits, float), axis=1)
    q = p.mean(0)
    divergences = [sum(a * math.log(a / b) for a, b in zip(row, q, strict=True) if a) for row in p]
    return math.exp(np.mean(divergences))


def test_the_score_is_the_mean_over_splits_in_order(capsys):
    logits = np.random.default_rng(0).normal(size=(250, 9)).astype(np.float32) * 4
    result = scored(logits, 100)
    expected = [stated(logits[start : start + 100]) for start in (0, 100, 200)]  # the last one is not full
    assert result["value"] == pytest.approx(np.mean(expected), rel=1e-9)
    assert result["std"] == pytest.approx(np.std(expected), rel=1e-9)
    assert (result["splits"], result["split"], result["samples"], result["too_few"]) == (3, 100, 250, True)
    assert "an Inception score in splits of 100 says little of so few images (250 samples)" in capsys.readouterr().err
    assert scored(logits, 25)["too_few"] is False
    assert InceptionScore.build(None, ()).split == 5000


def test_batches_and_hosts_do_not_change_it():
    logits = np.random.default_rng(1).normal(size=(230, 5)).astype(np.float32) * 3
    whole = scored(logits, 20)
    for size in (1, 7, 64):
        assert scored(logits, 20, size=size) == whole
    for parts in ((101,), (7, 222)):
        assert scored(logits, 20, parts=parts)["value"] == pytest.approx(whole["value"], rel=1e-13)


def test_known_scores():
    certain = np.kron(np.eye(7), np.ones((30, 1))) * 2000  # log p of the others underflows
    mixed = np.random.default_rng(2).permutation(certain)
    assert scored(mixed, 210)["value"] == pytest.approx(7.0)
    assert scored(np.ones((50, 4)), 5)["value"] == pytest.approx(1.0)
    assert scored(np.repeat(certain[:1], 50, axis=0), 5)["value"] == pytest.approx(1.0)  # one sample repeated


def test_parts_without_positions_are_refused():
    first = taken("inception_score", {LOGITS: np.ones((5000, 2))}, size=5000)
    first.merge(first)
    with pytest.raises(
        ValueError, match=r"10000 samples in split 0 of 5000: .* their positions in it \(Batch.index\)"
    ):
        first.result({})
    with pytest.raises(ValueError, match="is of samples, got none"):
        InceptionScore().result({})
