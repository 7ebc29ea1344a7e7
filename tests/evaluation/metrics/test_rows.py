"""What is kept of a stream depends on positions alone; distances are those of SciPy, and equal rows are at 0."""

import dataclasses

import numpy as np
import pytest
from feature_streams import batches
from scipy.spatial.distance import cdist

from fae_jax.evaluation.metrics import rows
from fae_jax.evaluation.metrics.rows import Rows, priority, squared_distances


def kept(features: np.ndarray, size: int, parts: tuple[int, ...] = ()) -> Rows:
    whole = Rows("x:y")
    for start, stop in zip((0, *parts), (*parts, len(features)), strict=True):
        part = Rows("x:y")
        for batch in batches({"x:y": features}, size, start, stop):
            part.update(batch)
        received = Rows("x:y")
        received.restore(part.state())
        whole.merge(received)
    return whole


def test_a_uniform_choice_by_position_whatever_the_batches_and_parts(monkeypatch):
    monkeypatch.setattr(rows, "LIMIT", 40)
    features = np.arange(1000, dtype=np.float32)[:, None]
    expected = np.sort(np.argsort(priority(np.arange(1000)))[:40])
    for size, parts in ((1, ()), (7, ()), (64, ()), (1000, ()), (64, (500,)), (7, (10, 990)), (7, (990, 995))):
        taken = kept(features, size, parts)
        assert len(taken) == 40 and taken.seen == 1000
        np.testing.assert_array_equal(taken.take(np.arange(40))[:, 0], expected)
        np.testing.assert_array_equal(np.concatenate([block for _, block in taken.blocks(7)])[:, 0], expected)
    assert len(kept(features[:40], 7)) == 40 and len(kept(features[:41], 7)) == 40


def test_the_choice_is_even():
    kept_positions = np.sort(np.argsort(priority(np.arange(100_000)))[:10_000])
    counts = np.histogram(kept_positions, bins=20, range=(0, 100_000))[0]
    assert np.sum((counts - 500) ** 2 / 500) < 45  # chi squared of 19 degrees of freedom: one in 700 is above


def test_rows_come_in_the_order_of_the_stream_and_only_those_among():
    features = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)
    late, early = batches({"x:y": features}, 20)[::-1]
    taken = Rows("x:y")
    taken.update(late)
    taken.update(dataclasses.replace(early, among=np.arange(20) % 2 == 0))
    expected = np.concatenate([features[:20:2], features[20:]])
    np.testing.assert_array_equal(taken.take(np.arange(20)), expected)
    np.testing.assert_array_equal(taken.take(np.array([19, 0, 3])), expected[[19, 0, 3]])
    np.testing.assert_array_equal(taken.state()["index"], [*range(0, 20, 2), *range(20, 30)])
    assert taken.width == 3 and taken.take(np.arange(2)).dtype == np.float64


def test_metrics_share_what_they_keep(monkeypatch):
    monkeypatch.setattr(rows, "JOINED", 16)
    first, second, features = Rows("x:y"), Rows("x:y"), np.random.default_rng(2).normal(size=(41, 2))
    for batch in batches({"x:y": features}, 5):
        first.update(batch)
        second.update(batch)
    for (_, ours), (_, theirs) in zip(first._parts, second._parts, strict=True):
        assert ours is theirs
    assert [len(part) for _, part in first._parts] == [20, 20, 1]
    np.testing.assert_array_equal(first.take(np.arange(41)), features.astype(np.float32))


def test_impossible_merges_are_refused():
    first = kept(np.ones((5, 2)), 5)
    with pytest.raises(ValueError, match="features 2 and 3 wide cannot be compared"):
        first.merge(kept(np.ones((5, 3)), 5))
    first.merge(kept(np.ones((5, 2)), 5))
    with pytest.raises(ValueError, match=r"merged parts of a stream must say their positions in it \(Batch.index\)"):
        len(first)


def test_squared_distances_are_exact_and_zero_where_rows_are_equal():
    rng = np.random.default_rng(1)
    first, second = (rng.normal(size=(count, 50)) + 100 for count in (20, 30))
    second[3] = first[5]
    values = squared_distances(first, second)
    np.testing.assert_allclose(values, cdist(first, second, "sqeuclidean"), rtol=1e-8)
    assert values[5, 3] == 0.0 and (values > 0).sum() == 599
    nearly = first.astype(np.float32)
    nearly[:, 0] += 1e-3
    assert squared_distances(nearly.astype(float), first.astype(np.float32).astype(float)).diagonal().min() > 0
