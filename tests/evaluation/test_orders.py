"""`benchmarks/orders.py` on small images: killed, it goes on; its scores are those of `fae evaluate`."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running import ROOT

from fae_jax.config import default_config, settle
from fae_jax.evaluation.foreign import score
from fae_jax.evaluation.looks import Looks
from fae_jax.evaluation.metrics import kid
from fae_jax.extractors import EXTRACTORS

sys.path.append(str(ROOT / "benchmarks"))

import orders  # noqa: E402

NAME = "inception:pool_3"


def test_a_killed_run_goes_on_and_scores_as_evaluate_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    random, calls, look = np.random.default_rng(0), [], Looks.look
    for side, count in (("train", 24), ("heldout", 16)):
        images = random.integers(60, 200, (count, 16, 16, 3), dtype=np.uint8)
        np.savez(tmp_path / f"{side}.npz", arr_0=images, arr_1=np.arange(count) % 8)
    train, heldout = (str(tmp_path / f"{side}.npz") for side in ("train", "heldout"))
    monkeypatch.setitem(EXTRACTORS, "inception", "pixel_extractor:build")
    monkeypatch.setattr(orders, "TAPS", {"inception": {"pool_3": orders.ALL}})
    monkeypatch.setattr(orders, "PART", 8)
    monkeypatch.setattr(kid, "SUBSETS", 4)

    def killed(looks: Looks, name: str, images: np.ndarray) -> Any:
        calls.append(len(images))
        if len(calls) == 11:  # the second part of a set
            raise KeyboardInterrupt
        return look(looks, name, images)

    monkeypatch.setattr(Looks, "look", killed)
    with pytest.raises(KeyboardInterrupt):
        orders.measure(train, heldout, ["inception"], tmp_path / "out")
    result = orders.measure(train, heldout, ["inception"], tmp_path / "out")
    assert calls == [8] * (3 + 10 * 2 + 1)  # each part once, but for the one that was killed

    sets = result["sets"]
    metrics, fields = orders.ALL, [("evaluation.metrics.frechet.extractors", f"('{NAME}',)")]
    told = score(heldout, train, metrics, settle(default_config(), fields))["scores"]
    ours = {**sets["as they are"][NAME]}
    assert {"frechet_inception_pool_3": ours.pop("frechet"), **ours} == told
    counts = [sets[f"{how} {left}"][NAME]["kid"]["samples"] for how in ("without", "beside") for left in (1, 3, 5)]
    assert counts == [14, 10, 6] * 2
    for way, (_, strengths) in orders.WAYS.items():
        names = ["as they are", *(f"{way} {strength:g}" for strength in strengths)]
        values = [sets[name][NAME]["frechet"]["samples_to_reference"] for name in names]
        assert len(set(values)) == 4
        assert result["orders"][way]["Fréchet distance"][NAME] == (values == sorted(values))
    assert result["orders"]["noise"]["Fréchet distance"][NAME]
    kept = (tmp_path / "out" / "orders.md").read_text()
    assert kept == orders.tables(sets) and kept.count("\n| as they are |") == len(orders.SCORES)
