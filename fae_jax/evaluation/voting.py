"""Exact search by cosine, a block at a time on the device, and the nearest-neighbour rule over it.

With unit vectors, the k most similar references r of a query q vote for their classes (DINOv2's rule)

    class(q) = argmax_c  Σ_{r of the k nearest, class(r) = c}  exp(q·r / τ)                          (1)

with k = 10 or 20 and τ = 0.07. Of equally similar references the first counts, of equally voted classes the first.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

QUERIES, REFERENCES = 1024, 16384  # rows of one block of similarities


def unit(vectors: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    """Rows of length one, float32; a row of zeros stays one."""
    vectors = np.asarray(vectors, np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


@functools.partial(jax.jit, static_argnames="count")
def _better(
    queries: Array, references: Array, first: int | Array, rows: int | Array, scores: Array, index: Array, count: int
) -> tuple[Array, Array]:
    """The best `count` so far, with one more block of references, of which `rows` are none of the filling."""
    found = jnp.matmul(queries, references.T, precision="highest")
    places = jnp.arange(len(references))
    found = jnp.where(places < rows, found, -jnp.inf)
    every = jnp.concatenate([scores, found], axis=1)
    numbers = jnp.concatenate([index, jnp.broadcast_to(first + places, found.shape)], axis=1)
    scores, best = jax.lax.top_k(every, count)
    return scores, jnp.take_along_axis(numbers, best, axis=1)


def _filled(block: np.ndarray, rows: int) -> np.ndarray:
    return np.pad(block, ((0, rows - len(block)), (0, 0)))


def most_similar(
    queries: Float[np.ndarray, "n d"], references: Float[np.ndarray, "m d"], count: int
) -> tuple[Float[np.ndarray, "n k"], Int[np.ndarray, "n k"]]:
    """Cosines and positions of the `count` references most similar to each query, the most similar first.

    Raises:
      ValueError: there are fewer references than that, or vectors of another width.
    """
    if not 1 <= count <= len(references):
        raise ValueError(f"{count} nearest of {len(references)} references cannot be found")
    if queries.shape[1] != references.shape[1]:
        raise ValueError(f"vectors of {queries.shape[1]} have no cosine with vectors of {references.shape[1]}")
    rows, columns = min(QUERIES, max(len(queries), 1)), min(REFERENCES, len(references))
    scores, index = np.empty((len(queries), count), np.float32), np.empty((len(queries), count), np.int64)
    for start in range(0, len(queries), rows):
        block = unit(queries[start : start + rows])
        held = jnp.asarray(_filled(block, rows))
        best = jnp.full((rows, count), -jnp.inf), jnp.full((rows, count), -1)
        for first in range(0, len(references), columns):
            part = unit(references[first : first + columns])
            best = _better(held, jnp.asarray(_filled(part, columns)), first, len(part), *best, count)
        scores[start : start + len(block)], index[start : start + len(block)] = (
            np.asarray(values)[: len(block)] for values in best
        )
    return scores, index


def vote(
    queries: Float[np.ndarray, "n d"],
    references: Float[np.ndarray, "m d"],
    labels: Int[np.ndarray, " m"],
    *,
    neighbours: Sequence[int],
    temperature: float,
) -> dict[int, Int[np.ndarray, " n"]]:
    """Equation (1) for each number of neighbours (all references, where there are fewer) → the classes voted for.

    Raises:
      ValueError: there are no references.
    """
    most = min(max(neighbours), len(references))
    scores, index = most_similar(queries, references, most)
    classes = np.unique(labels)
    weights, voted = np.exp(scores.astype(np.float64) / temperature), np.searchsorted(classes, labels[index])
    found = {}
    for count in neighbours:
        votes = np.zeros((len(queries), len(classes)))
        rows = np.broadcast_to(np.arange(len(queries))[:, None], voted[:, :count].shape)
        np.add.at(votes, (rows, voted[:, :count]), weights[:, :count])
        found[count] = classes[votes.argmax(axis=1)]
    return found
