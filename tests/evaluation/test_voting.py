"""Search by cosine and DINOv2's weighted vote, against the rule written out."""

import numpy as np
import pytest

from fae_jax.evaluation import voting
from fae_jax.evaluation.voting import most_similar, vote


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(voting, "QUERIES", 7)
    monkeypatch.setattr(voting, "REFERENCES", 11)


def vectors(seed, count, width=6):
    return np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)


def cosines(queries, references):
    return np.array([[q @ r / np.linalg.norm(q) / np.linalg.norm(r) for r in references] for q in queries])


def test_the_nearest_are_those_of_a_full_sort_across_blocks(small_blocks):
    queries, references = vectors(0, 16), vectors(1, 40) * np.linspace(0.1, 30, 40)[:, None].astype(np.float32)
    scores, index = most_similar(queries, references, 13)
    every = cosines(queries, references)
    np.testing.assert_array_equal(index, np.argsort(-every, axis=1)[:, :13])
    np.testing.assert_allclose(scores, -np.sort(-every, axis=1)[:, :13], atol=1e-6)


def test_of_equals_the_first_counts_and_a_vector_of_zeros_is_like_none(small_blocks):
    references = np.tile(np.array([[1.0, 0.0], [0.0, 1.0]], np.float32), (10, 1))
    _, index = most_similar(np.array([[2.0, 0.0]], np.float32), references, 5)
    assert index.tolist() == [[0, 2, 4, 6, 8]]
    scores, _ = most_similar(np.zeros((1, 2), np.float32), references, 3)
    assert scores.tolist() == [[0, 0, 0]]


def test_votes_are_weighted_by_similarity(small_blocks):
    queries, references = vectors(2, 9), vectors(3, 30)
    labels = np.random.default_rng(4).integers(5, 9, 30)
    found = vote(queries, references, labels, neighbours=(3, 10), temperature=0.07)
    every = cosines(queries, references)
    for count in (3, 10):
        for query, row in enumerate(every):
            best = np.argsort(-row)[:count]
            votes = {label: np.exp(row[best][labels[best] == label] / 0.07).sum() for label in set(labels[best])}
            assert found[count][query] == max(votes, key=votes.get)


def test_one_near_voter_outvotes_many_far_ones():
    references = np.array([[1, 0.0], [0.6, 0.8], [0.6, 0.8], [0.6, 0.8]], np.float32)
    labels = np.array([1, 0, 0, 0])
    query = np.array([[1.0, 0.05]], np.float32)
    assert vote(query, references, labels, neighbours=(4,), temperature=0.07)[4].tolist() == [1]
    assert vote(query, references, labels, neighbours=(4,), temperature=10.0)[4].tolist() == [0]


def test_too_few_references_and_other_widths_are_refused(unchecked_shapes):
    with pytest.raises(ValueError, match="3 nearest of 2"):
        most_similar(vectors(0, 1), vectors(0, 2), 3)
    with pytest.raises(ValueError, match="vectors of 6 have no cosine with vectors of 5"):
        most_similar(vectors(0, 1), vectors(0, 2, 5), 1)
    assert vote(vectors(0, 2), vectors(1, 3), np.arange(3), neighbours=(20,), temperature=1.0)[20].shape == (2,)
