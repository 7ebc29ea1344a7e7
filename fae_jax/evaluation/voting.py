"""Exact search for neighbours, a block at a time on the device, and the nearest-neighbour rule over it.

With unit vectors, the k most similar references r of a query q vote for their classes (DINOv2's rule)

    class(q) = argmax_c  Σ_{r of the k nearest, class(r) = c}  exp(q·r / τ)                          (1)

with k = 10 or 20 and τ = 0.07. Of equally similar references the first counts, of equally voted classes the first.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

BLOCK = 2**25  # numbers of a block of references, 128 MiB
QUERIES, REFERENCES = 1024, 16384  # rows of a block, where they are narrow


def unit(vectors: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    """Rows of length one, float32; a row of zeros stays one."""
    vectors = np.asarray(vectors, np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


@functools.partial(jax.jit, static_argnames="count")
def _better(
    queries: Array, references: Array, penalty: Any, first: Any, rows: Any, best: tuple[Array, Array], count: int
) -> tuple[Array, Array]:
    """The best `count` so far, with one more block of references, of which the first `rows` are real."""
    block = jnp.matmul(queries, references.T, precision="highest") - penalty * (references**2).sum(1)
    places = jnp.arange(len(references))
    every = jnp.concatenate([best[0], jnp.where(places < rows, block, -jnp.inf)], axis=1)
    numbers = jnp.concatenate([best[1], jnp.broadcast_to(first + places, block.shape)], axis=1)
    scores, order = jax.lax.top_k(every, count)
    return scores, jnp.take_along_axis(numbers, order, axis=1)


def search(
    queries: Shaped[np.ndarray, "n d"],
    references: Shaped[np.ndarray, "m d"],
    count: int,
    convert: Callable[[np.ndarray], Float[np.ndarray, "rows d"]],
    penalty: float = 0.0,
) -> tuple[Float[np.ndarray, "n k"], Int[np.ndarray, "n k"]]:
    """For each query the `count` references with the highest q·r − penalty |r|², the highest first, all compared.

    With a penalty of ½ they are those with the smallest |q − r|. Of equals the first counts. Products are taken in
    float32, and memory holds one block of converted rows whatever n and m.

    Args:
      convert: some rows of either → float32.

    Returns:
      Scores and positions.

    Raises:
      ValueError: there are fewer references than `count`.
    """
    if not 1 <= count <= len(references):
        raise ValueError(f"{count} nearest of {len(references)} references cannot be found")
    most = max(1, BLOCK // max(1, references.shape[1]))
    rows, columns = min(QUERIES, most, max(len(queries), 1)), min(REFERENCES, most, len(references))
    scores, index = np.empty((len(queries), count), np.float32), np.empty((len(queries), count), np.int64)

    def block(vectors: np.ndarray, start: int, size: int) -> tuple[int, Array]:
        part = convert(vectors[start : start + size])
        return len(part), jnp.asarray(np.pad(part, ((0, size - len(part)), (0, 0))))

    for start in range(0, len(queries), rows):
        real, held = block(queries, start, rows)
        best = jnp.full((rows, count), -jnp.inf), jnp.full((rows, count), -1)
        for first in range(0, len(references), columns):
            number, part = block(references, first, columns)
            best = _better(held, part, penalty, first, number, best, count)
        scores[start : start + real], index[start : start + real] = (np.asarray(values)[:real] for values in best)
    return scores, index


def most_similar(
    queries: Float[np.ndarray, "n d"], references: Float[np.ndarray, "m d"], count: int
) -> tuple[Float[np.ndarray, "n k"], Int[np.ndarray, "n k"]]:
    """Cosines and positions of the `count` references most similar to each query, the most similar first.

    Raises:
      ValueError: there are fewer references than that, or vectors of another width.
    """
    if queries.shape[1] != references.shape[1]:
        raise ValueError(f"vectors of {queries.shape[1]} have no cosine with vectors of {references.shape[1]}")
    return search(queries, references, count, unit)


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
    classes_by_count = {}
    for count in neighbours:
        votes = np.zeros((len(queries), len(classes)))
        rows = np.broadcast_to(np.arange(len(queries))[:, None], voted[:, :count].shape)
        np.add.at(votes, (rows, voted[:, :count]), weights[:, :count])
        classes_by_count[count] = classes[votes.argmax(axis=1)]
    return classes_by_count
