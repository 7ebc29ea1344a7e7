"""Equations (1) to (4) written out with SciPy's distances, and sets of known answers."""

import functools

import numpy as np
import pytest
from feature_streams import score, taken
from scipy.spatial.distance import cdist

from fae_jax.evaluation.metrics.rows import Rows

POOL = "inception:pool_3"


def scored(samples: np.ndarray, real: np.ndarray, **how) -> dict:
    first, second = taken("precision_recall", {POOL: samples}, **how), taken("precision_recall", {POOL: real})
    return score("precision_recall", first, second)


def stated(samples: np.ndarray, real: np.ndarray) -> dict[str, float]:
    def radii(members: np.ndarray, nearest: int) -> np.ndarray:
        return np.array([sorted(np.delete(row, i))[nearest - 1] for i, row in enumerate(cdist(members, members))])

    between = cdist(samples, real)
    inside = between <= radii(real, 5)
    return {
        "precision": np.mean([any(row <= radii(real, 3)) for row in between]),
        "recall": np.mean([any(row <= radii(samples, 3)) for row in between.T]),
        "density": inside.sum() / (5 * len(samples)),
        "coverage": np.mean(inside.any(0)),
    }


@pytest.mark.parametrize("block", [16, 2048])
def test_all_four_are_the_equations(block, monkeypatch):
    monkeypatch.setattr(Rows, "blocks", functools.partialmethod(Rows.blocks, block))
    rng = np.random.default_rng(0)
    samples, real = (
        rng.normal(size=(90, 6)).astype(np.float32) * 0.8 + 0.3,
        rng.normal(size=(70, 6)).astype(np.float32),
    )
    expected = stated(samples, real)
    assert min(expected.values()) > 0.1 and expected["precision"] != expected["recall"]
    result = scored(samples, real)
    assert {name: result[name] for name in expected} == pytest.approx(expected, rel=1e-12)
    assert (result["neighbours"], result["neighbours_of_density"]) == (3, 5)
    assert (result["samples"], result["reference"], result["against"]) == (90, 70, "reference")
    for how in ({"size": 1}, {"size": 7}, {"parts": (10,)}, {"parts": (33, 80)}):
        assert scored(samples, real, **how) == result


def test_known_answers(capsys):
    rng = np.random.default_rng(1)
    real = rng.normal(size=(1000, 4)).astype(np.float32)
    same = scored(real, real)
    assert (same["precision"], same["recall"], same["coverage"], same["too_few"]) == (1.0, 1.0, 1.0, False)
    far = scored(real + 100, real)
    assert (far["precision"], far["recall"], far["density"], far["coverage"]) == (0.0, 0.0, 0.0, 0.0)
    assert capsys.readouterr().err == ""
    collapsed = scored(np.repeat(real[:1], 50, axis=0), real)  # one sample repeated: lifelike, and nothing else
    assert collapsed["precision"] == 1.0 and collapsed["recall"] == 0.001 and collapsed["too_few"] is True
    assert "a score of precision and recall says little of so few images (50 samples, 1000" in capsys.readouterr().err
    half = scored(real[real[:, 0] > 0], real)  # half of what is real is left out
    assert half["precision"] == 1.0 and half["recall"] < 0.75


def test_too_little_is_refused():
    real = np.random.default_rng(2).normal(size=(50, 4))
    with pytest.raises(
        ValueError, match="precision_recall needs 6 images or more on both sides, got 5 samples and 50"
    ):
        scored(real[:5], real)
    with pytest.raises(ValueError, match="features 3 and 4 wide cannot be compared"):
        scored(real[:, :3], real)
    with pytest.raises(ValueError, match="'precision_recall' compares with real images.* alone serve fid and sfid"):
        taken("precision_recall", {POOL: real}).result({})
