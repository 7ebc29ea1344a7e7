"""The sections of the scores: samples by class, what they are near to, and results without a section of their own."""

from __future__ import annotations

from typing import Any

from fae_jax.report.markup import Markup, join, tag
from fae_jax.report.reading import Embedded, Record, SampleSet, at, branch, embed, measured
from fae_jax.report.stages import facts, framed, table_of
from fae_jax.report.words import brief, number, percent, spoken
from fae_jax.stages.figures import class_grid

KNOWN_RESULTS = {"generation", "reconstruction", "probe", "retrieval", "zero_shot", "semantics"}
KNOWN_FIGURES = {"reconstructions", "features", "nearest", "similarity", "matching"}
MOST_CLASSES = 24
MOST_ROWS = 40


def class_names(record: Record) -> list[str] | None:
    """Names of the classes, as the generation scores or the latent cache have them."""
    for names in (
        at(record.results, "generation", "class_names"),
        record.latents[-1].get("classes") if record.latents else None,
    ):
        if isinstance(names, list) and names:
            return [str(name) for name in names]
    return None


def _grid(samples: SampleSet, names: list[str] | None) -> Embedded | None:
    """A row per class, lettered, where the images themselves are at hand; else the grid that lies there."""
    if (
        samples.images is not None
        and len(samples.images)
        and samples.labels is not None
        and samples.labels.min() >= 0
    ):
        known = names or [str(label) for label in range(int(samples.labels.max()) + 1)]
        if samples.labels.max() < len(known):
            return embed(class_grid(samples.images, samples.labels.astype(int), known, columns=12, cell=64))
    return samples.grid


def guidance_words(guidance: Any) -> str:
    """A guidance setting as words: none, a weight, or weights by time."""
    if guidance in (None, "none", 1, 1.0):
        return "none"
    if isinstance(guidance, list | tuple) and all(
        isinstance(part, list | tuple) and len(part) == 3 for part in guidance
    ):
        return ", ".join(
            f"{brief(weight)} on [{brief(low)}, {brief(high)}]" for low, high, weight in sorted(guidance)
        )
    return brief(guidance) if isinstance(guidance, int | float) else str(guidance)


def _sampling_facts(samples: SampleSet, record: Record) -> Markup:
    scores = record.set_of(samples.name)
    settings = {**branch(scores, "sampling"), **samples.settings}
    count = measured(settings, "count") or measured(scores, "count")
    return facts(
        [
            ("recognised", percent(measured(scores, "accuracy"))),
            ("Fréchet distance", number(measured(scores, "frechet", "samples_to_heldout"))),
            ("samples", number(count)),
            ("sampler", spoken(str(settings["sampler"])) if "sampler" in settings else None),
            ("steps", number(measured(settings, "steps"))),
            ("network calls a sample", number(measured(settings, "function_evaluations"))),
            ("guidance", guidance_words(settings["guidance"]) if "guidance" in settings else None),
            ("labels", settings.get("label_policy")),
            ("seed", number(measured(settings, "seed"))),
        ]
    )


def _per_class(record: Record) -> Markup | None:
    """Recognised by class, a bar per set of samples; the weakest classes where there are very many."""
    sets = branch(record.results, "generation", "sets")
    scored = {name: branch(scores, "accuracy_per_class") for name, scores in sets.items()}
    scored = {name: values for name, values in scored.items() if values}
    if not scored:
        return None
    order = [name for name in ("unguided", "guided") if name in scored] + [
        name for name in scored if name not in ("unguided", "guided")
    ]
    classes = list(scored[order[-1]])
    cut = len(classes) > MOST_CLASSES
    if cut:
        known = [name for name in classes if measured(scored[order[-1]], name) is not None]
        classes = sorted(known, key=lambda name: scored[order[-1]][name])[:MOST_CLASSES]
    rows = []
    for name in classes:
        bars = []
        for position, which in enumerate(order):
            value = measured(scored[which], name)
            if value is not None:
                bar = tag("i", style=f"width:{100 * value:.1f}%", class_=f"bar b{min(position, 2)}")
                bars.append(tag("div", bar, tag("span", percent(value)), title=f"{which}: {percent(value)}"))
        rows.append(tag("li", tag("b", name), tag("div", bars, class_="bars")))
    legend = [tag("span", tag("i", class_=f"bar b{min(position, 2)}"), which) for position, which in enumerate(order)]
    said = f"The {MOST_CLASSES} classes recognised least" if cut else "Recognised as the class asked for, by class"
    return tag(
        "figure", tag("ol", rows, class_="perclass"), tag("figcaption", said, tag("span", legend, class_="legend"))
    )


def samples_section(record: Record, command: str) -> Markup:
    """Every set of samples by class, and how well each class is recognised."""
    if not record.samples:
        waiting = tag("p", "No samples yet. ", tag("code", command), class_="waiting")
        return tag("section", tag("header", tag("h2", "Samples")), waiting, id="samples")
    names = class_names(record)
    blocks = [
        tag(
            "div",
            tag("h3", spoken(samples.name).capitalize()),
            framed(_grid(samples, names), f"{samples.name} samples, a row per class"),
            _sampling_facts(samples, record),
            class_="set",
        )
        for samples in record.samples
    ]
    lead = (
        "Each row was asked for by its class alone; nothing was picked by hand. Guidance follows the difference "
        "that naming the class makes: clearer images, less variety."
    )
    return tag(
        "section",
        tag("header", tag("h2", "Samples")),
        tag("p", lead, class_="lead"),
        tag("div", blocks, class_="sets"),
        _per_class(record),
        id="samples",
    )


def novelty_section(record: Record) -> Markup | None:
    """Samples beside their nearest training images, with the distances that tell copies from news."""
    sets = branch(record.results, "generation", "sets")
    rows = []
    for name, scores in sets.items():
        near = branch(scores, "nearest")
        if near:
            flagged = at(near, "close")
            count = len(flagged) if isinstance(flagged, list) else None
            rows.append(
                tag(
                    "tr",
                    tag("th", f"{name} samples", scope="row"),
                    tag("td", number(measured(near, "median_samples"))),
                    tag("td", number(measured(near, "median_ratio_samples"))),
                    tag(
                        "td",
                        percent(measured(near, "fraction_close")),
                        f" ({number(count)})" if count is not None else "",
                    ),
                    tag("td", number(measured(near, "identical"))),
                )
            )
    image = record.figures.get("nearest")
    if not rows and image is None:
        return None
    table = None
    if rows:
        near = branch(next(iter(sets.values())), "nearest")
        honest = tag(
            "tr",
            tag("th", "unseen real images", scope="row"),
            tag("td", number(measured(near, "median_heldout"))),
            tag("td", number(measured(near, "median_ratio_heldout"))),
            tag("td", percent((measured(near, "limit_percentile") or 0) / 100)),
            tag("td", "–"),
        )
        heads = ("to the training set", "median distance", "nearest ÷ second", "close", "identical")
        table = table_of(heads, [*rows, honest])
    return tag(
        "section",
        tag("header", tag("h2", "New, or copied?")),
        tag(
            "p",
            "The nearest training image of a sample, in plain pixels. A sample is close when it lies nearer than "
            "99 % of unseen real images; a copy also shows as a nearest one far nearer than the second nearest.",
            class_="lead",
        ),
        framed(image, "samples beside their nearest training images"),
        table,
        id="novelty",
    )


def _flat(values: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Nested results as (name, value) lines; long lists are only counted."""
    if isinstance(values, dict):
        return [
            line
            for key, value in values.items()
            for line in _flat(value, f"{prefix} · {key}" if prefix else str(key))
        ]
    if isinstance(values, list):
        return [(prefix, f"{len(values)} values" if len(values) > 8 else ", ".join(str(value) for value in values))]
    plain = isinstance(values, int | float) and not isinstance(values, bool)
    return [(prefix, number(values) if plain else str(values))]


def other_section(record: Record) -> Markup | None:
    """Results and figures that this page has no words for, as they are."""
    blocks: list[Markup | None] = []
    for name, result in record.results.items():
        if name not in KNOWN_RESULTS:
            lines = [
                tag("tr", tag("th", spoken(key), scope="row"), tag("td", value))
                for key, value in _flat(result)[:MOST_ROWS]
            ]
            blocks.append(join(tag("h3", spoken(name).capitalize()), table_of((spoken(name), "value"), lines)))
    for name, image in record.figures.items():
        if name not in KNOWN_FIGURES:
            blocks.append(framed(image, spoken(name), image.caption or spoken(name)))
    return tag("section", tag("header", tag("h2", "More results")), blocks, id="more") if blocks else None
