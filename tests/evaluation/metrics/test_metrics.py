"""The contract: parts of a stream taken in by several metrics and merged are the stream, whatever the batches."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from fae_jax.data.sources.digit_captions import compositions
from fae_jax.evaluation.metrics import (
    METRICS,
    Batch,
    clip_score,
    compared_with,
    kid,
    known_metrics,
    results,
    take_in,
)
from fae_jax.evaluation.metrics.fdr6 import IMAGENET, FDr6Section
from fae_jax.extractors.lpips import LPIPS
from fae_jax.extractors.networks import Network

NAMES = [composition.sentences[0] for composition in compositions()[:10]]  # "a zero", …


def looked(name: str, features: np.ndarray) -> dict[str, np.ndarray]:
    if name == "encoder":
        return {"mean": features}
    return dict.fromkeys(("pool_3", "spatial", "logits", "pooled", "cls"), features)


def cut(batch: Batch, places: list[int]) -> list[Batch]:
    parts = np.split(np.arange(len(batch.images)), places)
    features = batch.taps("encoder")["mean"]
    return [
        Batch(
            images=batch.images[part],
            labels=batch.labels[part],
            originals=255 - batch.images[part] // 2,
            index=part,
            look=lambda name, part=part: looked(name, features[part]),
        )
        for part in parts
    ]


def close(first, second) -> bool:
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(close(first[key], second[key]) for key in first)
    if isinstance(first, float):
        return first == pytest.approx(second, rel=1e-9, abs=1e-9)
    return first == second


@dataclasses.dataclass
class Section:
    fdr6: FDr6Section


SECTION = Section(FDr6Section(validation=IMAGENET))


@pytest.mark.parametrize("name", METRICS)
def test_batches_and_merges_do_not_change_a_score(digits, name, monkeypatch):
    monkeypatch.setattr(kid, "SUBSETS", 4)
    monkeypatch.setattr(Network, "check", lambda self, weights="": None)
    monkeypatch.setattr(Network, "load", lambda self, weights="": {"by": np.float32(2)})
    monkeypatch.setattr(LPIPS, "distance", lambda self, params, a, b: params["by"] * abs(a - b).mean((1, 2, 3)))
    width = digits.train.taps("encoder")["mean"].shape[1]
    tower = SimpleNamespace(
        name="", weights_hash="", length=1, params={}, tokenize=lambda texts: (np.ones(len(texts)),) * 2
    )
    pooled = lambda params, tokens, mask: np.ones((len(tokens), width))
    monkeypatch.setattr(clip_score, "_tower", lambda name: (tower, pooled))
    real = {split: take_in(cut(getattr(digits, split), []), [name], SECTION, NAMES) for split in ("train", "heldout")}
    samples = dataclasses.replace(digits.heldout, images=np.roll(digits.heldout.images, 3, axis=0))
    (whole,) = cut(samples, [])
    expected = results(take_in([whole], [name], SECTION, NAMES), real)[0]
    in_batches = take_in(cut(samples, [1, 100, 101]), [name], SECTION, NAMES)
    assert close(results(in_batches, real)[0], expected)
    ours = take_in(cut(samples, [150])[:1], [name], SECTION, NAMES)
    ours[name].merge(take_in(cut(samples, [150])[1:], [name], SECTION, NAMES)[name])
    assert close(results(ours, real)[0], expected)
    in_batches = take_in(cut(samples, [150])[:1], [name], SECTION, NAMES)
    results(in_batches, dict.fromkeys(real, in_batches))  # asked before its stream has ended
    results(in_batches, real)  # and of the real images
    in_batches[name].update(cut(samples, [150])[1])
    assert close(results(in_batches, real)[0], expected)
    itself = take_in([whole], [name], SECTION, NAMES)
    own = dict.fromkeys(real, itself)
    assert close(results(in_batches, dict.fromkeys(real, in_batches))[0], results(itself, own)[0])
    empty = take_in([], [name], SECTION, NAMES)
    empty[name].merge(take_in([whole], [name], SECTION, NAMES)[name])
    assert close(results(empty, real)[0], expected)
    restored = take_in([], [name], SECTION, NAMES)
    restored[name].restore(take_in(cut(samples, [150])[:1], [name], SECTION, NAMES)[name].state())
    restored[name].merge(take_in(cut(samples, [150])[1:], [name], SECTION, NAMES)[name])
    assert close(results(restored, real)[0], expected)
    restored[name].restore(take_in([], [name], SECTION, NAMES)[name].state())  # a host that had no images
    restored[name].merge(in_batches[name])
    assert close(results(restored, real)[0], expected)


def test_two_metrics_with_one_name_for_a_score_are_refused(digits):
    batch = dataclasses.replace(digits.heldout, originals=digits.heldout.images)
    metrics = take_in([batch], ["fidelity"], None, NAMES)
    with pytest.raises(ValueError, match="two metrics call a score 'psnr', one of them 'again'; leave one out"):
        results({**metrics, "again": metrics["fidelity"]}, {})


def test_chosen_metrics_are_known_and_different():
    assert known_metrics(("frechet", "nearest")) is None
    for wrong in ((), ("fit",), ("frechet", "frechet")):
        assert "names of metrics, recognised, frechet, fid, " in known_metrics(wrong)


def test_a_reference_may_lack_what_only_some_metrics_need(digits):
    whole = cut(digits.heldout, [])
    metrics = take_in(whole, ["fid", "kid"], None, NAMES)
    statistics = {"reference": {"fid": metrics["fid"]}}  # of mean and covariance alone
    assert results({"fid": metrics["fid"]}, statistics)[0]["fid"]["against"] == "reference"
    with pytest.raises(
        ValueError, match="the metric 'kid' compares with real images, and there are none here: give a"
    ):
        results(metrics, statistics)


def test_an_extractor_looks_once_at_a_batch_whoever_asks(digits):
    asked = []
    batch = dataclasses.replace(digits.heldout, look=lambda name: asked.append(name) or {"mean": np.ones((359, 2))})
    assert batch.taps("encoder") is batch.taps("encoder") and batch.taps("another")["mean"].shape == (359, 2)
    assert asked == ["encoder", "another"]


def test_scores_are_against_the_reference_or_else_the_training_images():
    real = {"heldout": 1, "train": 2}
    assert compared_with({**real, "reference": 3}, "fid") == ("reference", 3)
    assert compared_with(real, "fid") == ("train", 2)
    with pytest.raises(ValueError, match="metric 'fid' compares with real images, and there are none"):
        compared_with({}, "fid")
