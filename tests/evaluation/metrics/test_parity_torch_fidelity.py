"""Scores of given features against torch-fidelity 0.4.0's arithmetic; none of its networks and images are used."""

import importlib.util
import os
import sys
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
from feature_streams import score, taken

from fae_jax.evaluation.metrics.inception_score import InceptionScoreSection

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.parity
POOL = "inception:pool_3"
VISION = ("torchvision", *(f"torchvision.{part}" for part in ("datasets", "models", "transforms", "utils")))


@pytest.fixture(scope="module")
def theirs() -> dict[str, ModuleType]:
    """Its modules by metric. What they import of torchvision is for images, and no score of features reads it."""
    if importlib.util.find_spec("torch_fidelity") is None:
        reason = "torch-fidelity is not installed: pip install --no-deps torch-fidelity==0.4.0"
        pytest.fail(reason) if os.environ.get("FAE_PARITY") else pytest.skip(reason)
    absent = () if importlib.util.find_spec("torchvision") else (*VISION, "torchvision.transforms.functional")
    sys.modules |= {name: MagicMock() for name in absent}
    try:
        return {
            name: importlib.import_module(f"torch_fidelity.metric_{name}") for name in ("fid", "isc", "kid", "prc")
        }
    finally:
        for name in absent:
            del sys.modules[name]


@pytest.fixture(scope="module")
def sets() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    samples = random.normal(size=(150, 16)) @ random.normal(size=(16, 16)) * 0.5 + 0.3
    return samples, random.normal(size=(130, 16)) * 1.2


def both(name: str, sets: tuple[np.ndarray, np.ndarray]) -> dict[str, Any]:
    return score(name, *(taken(name, {POOL: rows}, size=37) for rows in sets))


def test_fid(theirs: dict[str, ModuleType], sets: tuple[np.ndarray, np.ndarray]):
    statistics = [theirs["fid"].fid_features_to_statistics(torch.tensor(rows)) for rows in sets]
    want = theirs["fid"].fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert both("fid", sets)["value"] == pytest.approx(want, rel=1e-6) and want > 1


def test_inception_score(theirs: dict[str, ModuleType], sets: tuple[np.ndarray, np.ndarray]):
    logits = sets[0]
    metric = taken("inception_score", {"inception:logits": logits}, section=Sections(InceptionScoreSection(split=15)))
    made = metric.result({})["inception_score"]
    want = theirs["isc"].isc_features_to_metric(torch.tensor(logits), splits=10, shuffle=False)
    assert made["splits"] == 10 and made["value"] == pytest.approx(want["inception_score_mean"], rel=1e-6)
    assert made["std"] == pytest.approx(want["inception_score_std"], rel=1e-6)


class Sections:
    """The metrics' sections, of which one is asked for."""

    def __init__(self, inception_score: InceptionScoreSection):
        self.inception_score = inception_score


def test_kid(theirs: dict[str, ModuleType], sets: tuple[np.ndarray, np.ndarray]):
    made = both("kid", sets)
    how = {"kid_subsets": 100, "kid_subset_size": 130, "rng_seed": 2020, "verbose": False}
    want = theirs["kid"].kid_features_to_metric(*map(torch.tensor, sets), **how)
    assert made["value"] == pytest.approx(want["kernel_inception_distance_mean"], rel=1e-6)
    assert made["std"] == pytest.approx(want["kernel_inception_distance_std"], rel=1e-6, abs=1e-12)


def test_precision_and_recall(theirs: dict[str, ModuleType], sets: tuple[np.ndarray, np.ndarray]):
    made, (samples, real) = both("precision_recall", sets), map(torch.tensor, sets)
    want = theirs["prc"].prc_features_to_metric(samples, real, prc_neighborhood=3, prc_batch_size=64, verbose=False)
    assert (made["precision"], made["recall"]) == pytest.approx((want["precision"], want["recall"]), rel=1e-6)
    assert 0 < made["recall"] < 1 and made["precision"] != made["recall"]
