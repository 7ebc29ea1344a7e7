"""One section per stage: what goes in, what comes out, what the loss did, what it looked like on the way."""

from __future__ import annotations

import dataclasses
import statistics

from fae_jax.report.curves import chart
from fae_jax.report.markup import Markup, join, tag
from fae_jax.report.reading import Embedded, Record, Stage, at, measured
from fae_jax.report.words import duration, number, shape, size, spoken

PHASES = {f"seconds_{phase}" for phase in ("start", "compile", "data", "step", "checkpoint", "evaluation")}
SPEED = {"seconds", "images_per_second", "teraflops_per_second", "mfu", "goodput", *PHASES}
QUIET = {"loss", "skipped", "skipped_in_a_row", *SPEED}
MOST_SPARKS = 8
ROOM, LARGEST_FACTOR = 1090, 4  # pixels of the column; how far a small image is enlarged


@dataclasses.dataclass(frozen=True, kw_only=True)
class Story:
    """What a stage is, in words."""

    number: str
    title: str
    enters: str
    leaves: str
    text: str


STORIES = {
    "encoder": Story(
        number="0",
        title="Encoder",
        enters="images, some patches blanked",
        leaves="one feature vector x for each patch",
        text="A small vision transformer learns the classes and to fill in what was blanked, then is frozen for "
        "good. With a published encoder this stage does not exist.",
    ),
    "features": Story(
        number="Ia",
        title="Features through the latent",
        enters="the frozen features x",
        leaves="a small latent z, and x̂ rebuilt from it",
        text="One attention layer squeezes the features into a Gaussian latent; a transformer rebuilds them. The "
        "loss is the features' error plus a little of the distance of z from a standard normal.",
    ),
    "pixels": Story(
        number="Ib",
        title="From features to pixels",
        enters="features x with noise added",
        leaves="the image",
        text="A second transformer learns to paint the image from features that are slightly wrong on purpose, so "
        "that it forgives the errors of everything before it.",
    ),
    "finetune": Story(
        number="Ic",
        title="Pixels, fine-tuned",
        enters="x̂, as the latent gives it back",
        leaves="the image",
        text="The pixel decoder alone goes on learning, now from exactly what it will be given. All else is frozen.",
    ),
    "generator": Story(
        number="II",
        title="Generator",
        enters="noise, a time and a class",
        leaves="the velocity that carries noise to a latent z",
        text="A diffusion transformer learns to walk from noise to latents of the class asked for. It never sees "
        "a pixel, and the encoder is not run again.",
    ),
}


def scrubber(images: list[tuple[int, Embedded]], caption: str, name: str) -> Markup | None:
    """The previews as one image with a slider through the steps; without scripts the last one shows."""
    if not images:
        return None
    frames = [
        image_tag(image, f"{name}: preview at step {step:,}", hidden=step != images[-1][0], data_step=f"{step:,}")
        for step, image in images
    ]
    slider = None
    if len(images) > 1:
        last = len(images) - 1
        slider = tag(
            "label",
            tag("span", f"step {images[0][0]:,}"),
            tag(
                "input", type="range", min=0, max=last, value=last, step=1, aria_label=f"{name}: step of the preview"
            ),
            tag("output", f"step {images[-1][0]:,}"),
            class_="slider",
        )
    said = caption or images[-1][1].caption
    return tag(
        "figure",
        tag("div", frames, class_="frames"),
        slider,
        tag("figcaption", said) if said else None,
        class_="scrub",
    )


def image_tag(image: Embedded, said: str, **attributes: object) -> Markup:
    """An image that keeps small images' pixels sharp: those are enlarged by a whole factor where there is room."""
    classes = ["sharp"] * (image.width <= ROOM // 2) + ["broad"] * (image.width > 2.5 * image.height)
    factor = min(max(ROOM // image.width, 1), LARGEST_FACTOR)
    return tag(
        "img",
        src=image.source,
        alt=said,
        width=image.width,
        height=image.height,
        class_=" ".join(classes) or None,
        style=f"max-width:min(100%,{image.width * factor}px)",
        **attributes,
    )


def framed(image: Embedded | None, said: str, caption: object = None) -> Markup | None:
    """A figure with its caption, its own where none is given; nothing without an image."""
    if image is None:
        return None
    words = caption or image.caption
    return tag(
        "figure", tag("div", image_tag(image, said), class_="frames"), tag("figcaption", words) if words else None
    )


def table_of(heads: tuple[str, ...], rows: list[Markup]) -> Markup:
    """A table of rows under their heads."""
    head = tag("thead", tag("tr", [tag("th", word, scope="col") for word in heads]))
    return tag("div", tag("table", head, tag("tbody", rows)), class_="table")


def facts(pairs: list[tuple[str, object]]) -> Markup:
    """A definition list; what is not known is left out."""
    known = [(term, value) for term, value in pairs if value not in (None, "", "–")]
    return tag("dl", [tag("div", tag("dt", term), tag("dd", value)) for term, value in known], class_="facts")


def sparks(stage: Stage) -> Markup | None:
    """Every other metric as a small curve, from its first value to its last."""
    names = [name for name in stage.series if name.rsplit("/")[-1] not in QUIET and len(stage.series[name]) > 1]
    shown = names[:MOST_SPARKS]
    if not shown:
        return None
    cells = []
    for name in shown:
        points = stage.series[name]
        change = tag("span", number(points[0][1]), tag("i", "→"), tag("b", number(points[-1][1])), class_="change")
        title = tag("span", spoken(name), class_="name")
        cells.append(tag("li", title, chart(points, label=spoken(name), axes=False), change))
    return tag("ul", cells, class_="sparks")


def _head(story: Story, state: str, anchor: str) -> Markup:
    return tag(
        "header",
        tag("span", story.number, class_="ordinal"),
        tag("h2", story.title, id=f"{anchor}-title"),
        tag("span", state, class_="state") if state else None,
    )


def _passage(story: Story) -> Markup:
    return tag(
        "p",
        tag("span", story.enters, class_="enters"),
        tag("span", "→", class_="to", aria_hidden="true"),
        tag("span", story.leaves, class_="leaves"),
        class_="passage",
    )


def stage_section(stage: Stage, record: Record, command: str) -> Markup:
    """A stage's section; one line and its command where it has not begun."""
    story = STORIES[stage.name]
    if not stage.begun:
        waiting = tag("p", "Not begun. ", tag("code", command), class_="waiting")
        return tag("section", _head(story, "", stage.name), _passage(story), waiting, id=stage.name, class_="stage")
    section = "encoder_training" if stage.name == "encoder" else stage.name
    wanted = measured(record.config, section, "steps")
    rates = [value for _, value in stage.series.get("images_per_second", [])]
    unfinished = stage.step is not None and wanted is not None and stage.step < wanted
    skipped = stage.last("skipped")
    described = facts(
        [
            ("steps", f"{number(stage.step)} of {number(wanted)}" if unfinished else number(stage.step)),
            ("batch", number(measured(record.config, section, "batch"))),
            ("time", duration(record.timings.get(stage.name, stage.last("seconds")))),
            ("images a second", number(statistics.median(rates)) if rates else None),
            ("steps skipped", number(skipped) if skipped else None),
        ]
    )
    losses = stage.series.get("loss")
    curve = None
    if losses:
        before, after = number(losses[0][1]), number(losses[-1][1])
        title = tag("h3", "loss", tag("span", before, tag("i", "→"), tag("b", after), class_="change"))
        curve = tag(
            "div", title, chart(losses, label=f"{story.title}, loss"), tag("p", "step", class_="axis"), class_="curve"
        )
    return tag(
        "section",
        _head(story, "under way" if unfinished else "", stage.name),
        tag(
            "div",
            tag("div", _passage(story), tag("p", story.text), described),
            curve,
            class_="columns",
        ),
        sparks(stage),
        scrubber(stage.previews, stage.caption, story.title),
        id=stage.name,
        class_=f"stage {stage.name}",
    )


def cache_section(record: Record, command: str) -> Markup:
    """The latent cache, from its headers."""
    head = tag("header", tag("h2", "Latent cache", id="cache-title"))
    passage = tag(
        "p",
        tag("span", "every image, once", class_="enters"),
        tag("span", "→", class_="to", aria_hidden="true"),
        tag("span", "mean and variance of its latent, on disk", class_="leaves"),
        class_="passage",
    )
    if not record.latents:
        waiting = tag("p", "Not begun. ", tag("code", command), class_="waiting")
        return tag("section", head, passage, waiting, id="cache", class_="stage")
    bodies = []
    for header in record.latents:
        sides = header.get("shape")
        bodies.append(
            facts(
                [
                    ("images", number(measured(header, "images"))),
                    ("views of each", number(measured(header, "views"))),
                    ("tokens × channels", shape(sides) if isinstance(sides, list) else None),
                    ("on disk", size(measured(header, "bytes"))),
                    ("encoder", at(header, "identity", "encoder")),
                    ("cache", at(header, "hash")),
                    ("time", duration(record.timings.get("cache"))),
                ]
            )
        )
    text = tag(
        "p",
        "The encoder runs once over the data; the generator then learns from what is stored, standardised by "
        "statistics that are exact over the whole set. A cache of another encoder or compressor is refused.",
    )
    return tag("section", head, passage, text, join(*bodies), id="cache", class_="stage")
