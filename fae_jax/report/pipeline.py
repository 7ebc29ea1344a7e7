"""One image's way through FAE, drawn with the sizes of this run: each array a block as tall as it is large."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from fae_jax.report.markup import Markup, tag
from fae_jax.report.reading import Record, at, measured
from fae_jax.report.words import millions, number, shape

TALLEST, SHORTEST = 136, 26  # pixels on the page


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sizes:
    """What is known of the arrays and networks; None or missing where nothing in the working directory says it.

    Attributes:
      image, features, latent: (rows, columns, channels).
      parameters: network → number of parameters.
    """

    image: tuple[int, ...] | None
    features: tuple[int, ...] | None
    latent: tuple[int, ...] | None
    parameters: dict[str, float]


def _triple(values: object) -> tuple[int, ...] | None:
    if not isinstance(values, Sequence) or len(values) != 3:
        return None
    return tuple(values) if all(isinstance(v, int) and v > 0 for v in values) else None


def known_sizes(record: Record) -> Sizes:
    """From `sizes.json`; else the image and feature width from the configuration, the latent from its cache."""
    image, features, latent = (_triple(record.sizes.get(name)) for name in ("image", "features", "latent"))
    side = measured(record.config, "data", "image_size")
    if image is None and side:
        image = (int(side), int(side), 3)
    cached = record.latents[-1].get("shape") if record.latents else None
    if latent is None and isinstance(cached, list) and len(cached) == 2 and all(isinstance(v, int) for v in cached):
        rows = math.isqrt(cached[0])
        latent = (rows, rows, cached[1]) if rows * rows == cached[0] else None
    width = measured(record.config, "encoder", "width")
    if features is None and latent and width and at(record.config, "encoder", "train"):
        features = (latent[0], latent[1], int(width))
    parameters = record.sizes.get("parameters")
    named = parameters if isinstance(parameters, dict) else {}
    counts = {name: count for name in named if (count := measured(named, name)) is not None}
    return Sizes(image=image, features=features, latent=latent, parameters=counts)


def _block(name: str, said: str, sizes: tuple[int, ...] | None, largest: int, kind: str) -> Markup:
    count = math.prod(sizes) if sizes else None
    height = SHORTEST + (TALLEST - SHORTEST) * math.sqrt(count / largest) if count else (SHORTEST + TALLEST) / 2
    return tag(
        "li",
        tag("div", tag("i", style=f"--size:{height:.0f}px"), class_="block"),
        tag("b", name),
        tag("span", said),
        tag("span", shape(sizes), class_="figures") if sizes else None,
        tag("span", f"{number(count)} numbers", class_="figures") if count else None,
        class_=f"node {kind}",
    )


def _arrow(name: str, count: float | None, kind: str, note: str = "") -> Markup:
    return tag(
        "li",
        tag("b", name),
        tag("div", class_="shaft", aria_hidden="true"),
        tag("span", f"{millions(count)} parameters", class_="figures") if count else None,
        tag("span", note, class_="note") if note else None,
        class_=f"arrow {kind}",
    )


def drawing(sizes: Sizes, encoder: str) -> Markup:
    """The two lines: image → x → z → x̂ → image, and noise → z."""
    known = [math.prod(values) for values in (sizes.image, sizes.features, sizes.latent) if values]
    largest = max(known, default=1)
    count = sizes.parameters.get
    squeeze = ""
    if sizes.features and sizes.latent:
        factor = math.prod(sizes.features) / math.prod(sizes.latent)
        squeeze = f"{number(factor)} times fewer numbers"
    way = tag(
        "ol",
        _block("image", "pixels", sizes.image, largest, "pixels"),
        _arrow(encoder or "encoder", count("encoder"), "frozen", "frozen"),
        _block("x", "features", sizes.features, largest, "features"),
        _arrow("compressor", count("compressor"), "", squeeze),
        _block("z", "latent", sizes.latent, largest, "latent"),
        _arrow("feature decoder", count("feature_decoder"), ""),
        _block("x̂", "features again", sizes.features, largest, "features"),
        _arrow("pixel decoder", count("pixel_decoder"), ""),
        _block("image", "pixels again", sizes.image, largest, "pixels"),
        class_="way",
    )
    dreamt = tag(
        "p",
        tag("b", "noise + class"),
        tag("span", "→", class_="to", aria_hidden="true"),
        tag("b", "generator"),
        tag("span", f"{millions(count('generator'))} parameters", class_="figures") if count("generator") else None,
        tag("span", "→", class_="to", aria_hidden="true"),
        tag("b", "z", class_="z"),
        tag("span", "and from z on the same two decoders paint an image that never was", class_="note"),
        class_="dream",
    )
    return tag("figure", way, dreamt, class_="pipeline")
