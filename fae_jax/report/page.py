"""The page as a whole: one HTML file that opens anywhere, offline, and needs nothing beside it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from fae_jax.files.writing import write_atomically
from fae_jax.report.closing import next_section, times_section
from fae_jax.report.markup import Markup, join, tag
from fae_jax.report.pipeline import drawing, known_sizes
from fae_jax.report.reading import Record, at, embed, measured
from fae_jax.report.scores import (
    novelty_section,
    other_section,
    samples_section,
)
from fae_jax.report.stages import cache_section, facts, stage_section
from fae_jax.report.style import SCRIPT, STYLE
from fae_jax.report.understanding import understanding_section
from fae_jax.report.verdicts import chosen_set, judge_verdicts, summary, tiles
from fae_jax.report.words import number, shape, spoken

HERO_ROWS, HERO_COLUMNS = 4, 5
ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http%3A//www.w3.org/2000/svg' viewBox='0 0 32 32'%3E"
    "%3Cpath d='M3 4v24l8-9v-6zM29 4v24l-8-9v-6z' fill='%233257d4'/%3E"
    "%3Crect x='13.5' y='11' width='5' height='10' rx='1' fill='%23d98a1f'/%3E%3C/svg%3E"
)


def _name(record: Record) -> str:
    return str(record.config.get("name") or record.workdir.resolve().name or "experiment")


def _hero(record: Record) -> Markup | None:
    """A few samples, the classes in turn, from the set the verdict is about."""
    chosen = chosen_set(record) or "guided"
    found = [samples for samples in record.samples if samples.images is not None and len(samples.images)]
    if not found:
        return None
    samples = next((samples for samples in found if samples.name == chosen), found[-1])
    images, labels = np.asarray(samples.images), np.asarray(samples.labels)
    rank = np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        rank[labels == label] = np.arange(np.sum(labels == label))
    order = np.lexsort((labels, rank))[: HERO_ROWS * HERO_COLUMNS]
    height, width = images.shape[1:3]
    gap = max(width // 16, 1)
    rows = -(-len(order) // HERO_COLUMNS)
    strip = np.zeros((rows * (height + gap) - gap, HERO_COLUMNS * (width + gap) - gap, 4), np.uint8)
    for position, chosen_image in enumerate(order):
        row, column = divmod(position, HERO_COLUMNS)
        top, left = row * (height + gap), column * (width + gap)
        strip[top : top + height, left : left + width, :3] = images[chosen_image]
        strip[top : top + height, left : left + width, 3] = 255
    embedded = embed(Image.fromarray(strip))
    said = f"{spoken(samples.name).capitalize()} samples, drawn by this model from noise and a class."
    image = tag("img", src=embedded.source, alt=said, width=embedded.width, height=embedded.height)
    return tag("figure", image, tag("figcaption", said), class_="hero")


def _top(record: Record, line: Markup | None) -> Markup:
    sizes = known_sizes(record)
    source = at(record.config, "data", "source")
    kept = facts(
        [
            ("data", source),
            ("images", shape(sizes.image)),
            ("encoder", at(record.config, "encoder", "name")),
            ("latent", shape(sizes.latent)),
            ("seed", number(measured(record.config, "seed"))),
        ]
    )
    lead = (
        "A frozen encoder's features, squeezed into a latent that is small enough to generate and keeps enough to "
        "understand. Every number and image here was measured in this run."
    )
    return tag(
        "header",
        tag(
            "div",
            tag("p", "FAE · Feature Auto-Encoder", class_="kicker"),
            tag("h1", _name(record)),
            tag("p", lead, class_="lead"),
            line,
            kept,
        ),
        _hero(record),
        class_="top",
    )


def _navigation(links: list[tuple[str, str, bool]]) -> Markup:
    items = [
        tag("li", tag("a", words, href=f"#{anchor}", class_=None if there else "idle"))
        for anchor, words, there in links
    ]
    return tag("nav", tag("ul", items), aria_label="Sections")


def make_page(record: Record, targets: Mapping[str, float] | None = None) -> str:
    """The whole page as HTML."""
    verdicts = judge_verdicts(record, targets)
    here = shlex.quote(str(record.workdir))
    stages = {
        stage.name: stage_section(stage, record, f"fae train {stage.name} --workdir {here}")
        for stage in record.stages
        if stage.begun or stage.name != "encoder" or at(record.config, "encoder", "train") is not False
    }
    cache = cache_section(record, f"fae cache --workdir {here}")
    novelty, understanding, more = novelty_section(record), understanding_section(record), other_section(record)
    times = times_section(record)
    begun = {stage.name: stage.begun for stage in record.stages}
    links = [("verdict", "Scores", True), ("pipeline", "Pipeline", True)]
    links += [(name, name.capitalize(), begun[name]) for name in stages if name != "generator"]
    links += [("cache", "Cache", bool(record.latents)), ("generator", "Generator", begun["generator"])]
    links += [("samples", "Samples", bool(record.samples))]
    optional = (
        ("novelty", "New?", novelty),
        ("understanding", "Understanding", understanding),
        ("more", "More", more),
    )
    links += [(anchor, words, True) for anchor, words, section in (*optional, ("time", "Time", times)) if section]
    links += [("next", "Go on", True)]
    body = tag(
        "main",
        tag("section", tag("header", tag("h2", "Scores")), tiles(verdicts), id="verdict"),
        tag(
            "section",
            tag("header", tag("h2", "One image’s way")),
            tag(
                "p",
                "Each block is as tall as the array has numbers, square-rooted. z is all the generator has to learn.",
                class_="lead",
            ),
            drawing(known_sizes(record), str(at(record.config, "encoder", "name") or "")),
            id="pipeline",
        ),
        [section for name, section in stages.items() if name != "generator"],
        cache,
        stages["generator"],
        samples_section(record, f"fae sample --workdir {here}"),
        novelty,
        understanding,
        more,
        times,
        next_section(record),
    )
    top = _top(record, summary(verdicts))
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{_name(record)} · FAE"),
        tag("link", rel="icon", href=Markup(ICON)),
        tag("style", Markup(STYLE)),
    )
    footer = tag(
        "footer", f"Measured in {record.workdir}. The numbers are in its evaluation/ and metrics.jsonl files."
    )
    document = tag(
        "html", head, tag("body", top, _navigation(links), body, footer, tag("script", Markup(SCRIPT))), lang="en"
    )
    return str(join(Markup("<!doctype html>\n"), document, "\n"))


def write_report(workdir: Path, targets: Mapping[str, float] | None = None) -> Path:
    """Draws `report.html` in a working directory from whatever it holds so far; returns its path.

    Args:
      workdir: of the experiment; nothing outside it is read.
      targets: score → what it has to reach (names as in `verdicts.DIGITS_TARGETS`); default: the quickstart's on
        digits, none on other data.

    Raises:
      FileNotFoundError: there is no such directory.
      OSError: it cannot be written; an earlier report is kept.
    """
    root = Path(workdir)
    if not root.is_dir():
        raise FileNotFoundError(
            f"{root} is not a working directory; `fae run --config CONFIG --workdir {root}` makes it"
        )
    page = make_page(Record.read(root), targets)
    return write_atomically(root / "report.html", page.encode("utf-8"))
