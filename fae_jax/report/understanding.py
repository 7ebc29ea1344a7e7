"""The section of what the latent still understands: probes, retrieval, zero-shot, semantics, images rebuilt."""

from __future__ import annotations

from typing import Any

from fae_jax.report.markup import Markup, tag
from fae_jax.report.reading import Record, branch, measured
from fae_jax.report.stages import facts, framed, table_of
from fae_jax.report.words import decibels, number, percent, spoken

SPACES = ("x", "reconstructed", "z")
HEADS = ("x", "x̂", "z")
FIGURES = {
    "features": "features before and after the latent, as colours",
    "reconstructions": "images beside their reconstructions",
    "similarity": "how similar each patch is to the marked one, in x, x̂ and z",
    "matching": "patches of one image and the most similar ones of another",
}


def _row(words: str, *values: str) -> Markup:
    return tag("tr", tag("th", words, scope="row"), [tag("td", value) for value in values])


def _scored(words: str, scores: Any, spaces: tuple[str, ...] = SPACES) -> list[Markup]:
    """A row of shares, where at least one was measured."""
    values = [measured(scores, name) for name in spaces]
    return [_row(words, *map(percent, values))] if any(value is not None for value in values) else []


def _probe(probe: dict[str, Any]) -> Markup | None:
    own, pooling = branch(probe, "own_head"), branch(probe, "own_pooling")
    rows = [
        *_scored("linear probe", branch(probe, "linear")),
        *_scored("nearest neighbours", branch(probe, "nearest_neighbour")),
        *_scored("encoder's own head", own),
        *_scored("own head, patches only", branch(own, "patches_only")),
        *_scored("linear probe after own pooling", branch(pooling, "linear")),
        *_scored("nearest neighbours after own pooling", branch(pooling, "nearest_neighbour")),
    ]
    for name, accuracy in branch(probe, "linear", "inputs").items():
        rows += _scored(f"linear probe of {name}", {"x": accuracy})
    if not rows:
        return None
    more = facts(
        [
            ("cosine x, x̂", number(measured(probe, "cosine"))),
            ("variance explained", percent(measured(probe, "explained_variance"))),
            ("own head agrees", percent(measured(own, "agreement"))),
            ("unseen images", number(measured(probe, "heldout"))),
        ]
    )
    return tag("div", table_of(("classes recognised from", *HEADS), rows), more)


def _retrieval(found: dict[str, Any]) -> Markup | None:
    rows = []
    for way, words in (
        ("text_to_image", "images found for a caption"),
        ("image_to_text", "captions for an image"),
    ):
        for space, head in zip(SPACES[:2], HEADS[:2], strict=True):
            recalls = branch(found, space, way)
            if recalls:
                rows.append(_row(f"{words}, {head}", *(percent(measured(recalls, k)) for k in ("1", "5", "10"))))
    if not rows:
        return None
    more = facts([(name, number(measured(found, name))) for name in ("images", "captions")])
    return tag("div", table_of(("among the first", "1", "5", "10"), rows), more)


def _zero_shot(found: dict[str, Any]) -> Markup | None:
    rows = [*_scored("named by the text tower", branch(found, "top_1"), SPACES[:2])]
    rows += _scored("among its first five", branch(found, "top_5"), SPACES[:2])
    return table_of(("classes, zero-shot", *HEADS[:2]), rows) if rows else None


def _semantics(found: dict[str, Any]) -> Markup | None:
    rows = []
    for space, head in (("reconstructed", "x̂"), ("z", "z")):
        scores = branch(found, "agreement_with_x", space)
        if scores:
            rows.append(
                _row(
                    head,
                    number(measured(scores, "similarity_maps")),
                    percent(measured(scores, "matches")),
                    percent(measured(scores, "matches_within_one")),
                )
            )
    heads = ("agrees with x", "similarity maps", "same match", "within one patch")
    return table_of(heads, rows) if rows else None


def _rebuilt(sets: dict[str, Any]) -> Markup | None:
    rows = [
        _row(
            "unseen" if name == "heldout" else spoken(str(name)),
            decibels(measured(scores, "psnr")),
            decibels(measured(scores, "psnr_lowest")),
            number(measured(scores, "ssim")),
            number(measured(scores, "count")),
        )
        for name, scores in sets.items()
    ]
    return table_of(("images rebuilt", "PSNR", "lowest", "SSIM", "images"), rows) if rows else None


def understanding_section(record: Record) -> Markup | None:
    """What is still recognised in x, x̂ and z; the features as colours; what is similar; the images rebuilt."""
    results = record.results
    tables = [
        table
        for table in (
            _probe(results.get("probe", {})),
            _retrieval(results.get("retrieval", {})),
            _zero_shot(results.get("zero_shot", {})),
            _semantics(results.get("semantics", {})),
            _rebuilt(branch(results, "reconstruction", "sets")),
        )
        if table is not None
    ]
    images = [framed(record.figures.get(name), said) for name, said in FIGURES.items()]
    if not tables and not any(images):
        return None
    return tag(
        "section",
        tag("header", tag("h2", "Understanding kept")),
        tag(
            "p",
            "One classifier is trained on the encoder's features x and then shown x̂, rebuilt from the latent, "
            "without being told. What it still recognises is what the latent carries. z has a classifier of its own.",
            class_="lead",
        ),
        images,
        tag("div", tables, class_="tables"),
        id="understanding",
    )
