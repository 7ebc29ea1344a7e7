"""Tables of what the latent still understands: probes, retrieval, zero-shot, semantics, images rebuilt."""

from __future__ import annotations

import re
from typing import Any

from fae_jax.report.reading import Record, branch, measured
from fae_jax.report.scores import other_scores
from fae_jax.report.words import Table, decibels, number, percent, spoken

SPACES = {"x": "x", "reconstructed": "x̂", "z": "z"}


def _shares(words: str, scores: Any, spaces: int = 3) -> list[tuple[str, ...]]:
    """A row of shares by space, where at least one was measured."""
    values = [measured(scores, space) for space in list(SPACES)[:spaces]]
    return [(words, *map(percent, values))] if any(value is not None for value in values) else []


def input_words(name: str) -> str:
    """What a probe was given beside the mean patch: "class 4" is the class tokens of the last four blocks."""
    match = re.fullmatch(r"class (\d+)(.*)", name)
    if not match:
        return name
    tokens = "the class token" if match[1] == "1" else f"the class tokens of the last {match[1]} blocks"
    return tokens + match[2]


def _probe(probe: dict[str, Any]) -> Table:
    own, pooling = branch(probe, "own_head"), branch(probe, "own_pooling")
    rows = [
        *_shares("linear probe", branch(probe, "linear")),
        *_shares("nearest neighbours", branch(probe, "nearest_neighbour")),
        *_shares("encoder's own head", own),
        *_shares("own head, patches only", branch(own, "patches_only")),
        *_shares("linear probe after own pooling", branch(pooling, "linear")),
        *_shares("nearest neighbours after own pooling", branch(pooling, "nearest_neighbour")),
    ]
    for name, accuracy in branch(probe, "linear", "inputs").items():
        rows += _shares(f"linear probe of {input_words(name)}", {"x": accuracy})
    facts = [
        ("cosine x, x̂", number(measured(probe, "cosine"))),
        ("variance explained", percent(measured(probe, "explained_variance"))),
        ("own head agrees", percent(measured(own, "agreement"))),
        ("unseen images", number(measured(probe, "heldout"))),
    ]
    return Table(("classes recognised from", *SPACES.values()), rows, facts)


def _retrieval(result: dict[str, Any]) -> Table:
    rows = []
    for way, words in (
        ("text_to_image", "images retrieved for a caption"),
        ("image_to_text", "captions for an image"),
    ):
        for space in ("x", "reconstructed"):
            recalls = branch(result, space, way)
            if recalls:
                shares = (percent(measured(recalls, k)) for k in ("1", "5", "10"))
                rows.append((f"{words}, {SPACES[space]}", *shares))
    facts = [(name, number(measured(result, name))) for name in ("images", "captions")]
    return Table(("among the first", "1", "5", "10"), rows, facts)


def _zero_shot(result: dict[str, Any]) -> Table:
    rows = _shares("named by the text tower", branch(result, "top_1"), 2)
    rows += _shares("among its first five", branch(result, "top_5"), 2)
    return Table(("classes, zero-shot", "x", "x̂"), rows)


def _semantics(result: dict[str, Any]) -> Table:
    rows = []
    for space in ("reconstructed", "z"):
        scores = branch(result, "agreement_with_x", space)
        if scores:
            matches = (percent(measured(scores, name)) for name in ("matches", "matches_within_one"))
            rows.append((SPACES[space], number(measured(scores, "similarity_maps")), *matches))
    return Table(("agrees with x", "similarity maps", "same match", "within one patch"), rows)


def _rebuilt(sets: dict[str, Any]) -> Table:
    rows = [
        (
            "unseen" if name == "heldout" else spoken(name),
            decibels(measured(scores, "psnr")),
            decibels(measured(scores, "psnr_lowest")),
            number(measured(scores, "ssim")),
            number(measured(scores, "count")),
        )
        for name, scores in sets.items()
    ]
    facts = [line for scores in sets.values() for line in other_scores(scores)]
    return Table(("images rebuilt", "PSNR", "lowest", "SSIM", "images"), rows, facts)


def tables(record: Record) -> list[Table]:
    """What is still recognised in x, x̂ and z, what is retrieved, similar, rebuilt; those that have a row."""
    results = record.results
    every = (
        _probe(results.get("probe", {})),
        _retrieval(results.get("retrieval", {})),
        _zero_shot(results.get("zero_shot", {})),
        _semantics(results.get("semantics", {})),
        _rebuilt(branch(results, "reconstruction", "sets")),
    )
    return [table for table in every if table.rows]
