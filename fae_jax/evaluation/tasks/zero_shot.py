"""Classes named by the text tower alone: no image of them was learnt from, neither for x nor for x̂.

    w_c = mean over templates of t("a photo of a NAME."), unit vectors each, made unit again
    class(image) = argmax_c  p · w_c                                                                        (1)

`evaluation/zero_shot.json`:

    schema                 1
    encoder, text_tower    names and SHA-256 of weights
    images, classes      how many
    templates              what was said of a class
    top_1, top_5           {x, reconstructed}: share of held-out images whose class is the first, or among five
    loss_in_points         100 (top_1 of x − top_1 of x̂);  agreement: share with the same class from both
    no_reconstructed       why there is no x̂, where the encoder's pooling reads its class token alone
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from fae_jax.evaluation.streams import Streams
from fae_jax.evaluation.tasks import Outcome
from fae_jax.evaluation.text_side import TextSide
from fae_jax.evaluation.views import View
from fae_jax.evaluation.voting import most_similar, unit
from fae_jax.model import FAE
from fae_jax.section import at_least, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class ZeroShotSection:
    """Classes by name alone."""

    templates: tuple[Any, ...] = option(
        ("a photo of a {}.",),
        "said of a class, {} its name; their mean counts",
        lambda texts: (
            None
            if texts and all(isinstance(text, str) and "{}" in text for text in texts)
            else "holds texts with {} for the class"
        ),
    )
    names: str = option("", "JSON file of class names, a list or {class: name}; empty = the source's own", path=True)
    limit: int = option(0, "images at most, the first ones; 0 = all", at_least(0))


def read_names(file: str, classes: Sequence[str]) -> list[str]:
    """What each class is called: the source's own words, or those of a JSON file (a list, or {class: name}).

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is no such list or does not name every class.
    """
    if not file:
        return [name.replace("_", " ") for name in classes]
    if not Path(file).is_file():
        raise FileNotFoundError(f"the class names {file} do not exist")
    try:
        listed = json.loads(Path(file).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"the class names {file} are not JSON ({error})") from None
    if isinstance(listed, dict):
        missing = [name for name in classes if name not in listed]
        if missing:
            raise ValueError(f"{file} has no name for {len(missing)} of {len(classes)} classes: {missing[0]!r}, …")
        return [str(listed[name]) for name in classes]
    if not isinstance(listed, list) or len(listed) != len(classes):
        known = len(listed) if isinstance(listed, list) else "no list of"
        raise ValueError(f"{file} holds {known} names, the data has {len(classes)} classes")
    return [str(name) for name in listed]


def class_vectors(side: TextSide, names: Sequence[str], templates: Sequence[str]) -> Float[np.ndarray, "c p"]:
    """The unit vectors w of equation (1)."""
    vectors = side.texts([template.replace("{}", name) for template in templates for name in names])
    return unit(vectors.reshape(len(templates), len(names), -1).mean(axis=0))


def evaluate_zero_shot(
    side: TextSide, views: Iterable[View], *, names: Sequence[str], templates: Sequence[str]
) -> dict[str, Any]:
    """The result, as plain JSON values.

    Raises:
      ValueError: images and texts have vectors of another width, or there is no image.
    """
    classes = class_vectors(side, names, templates)
    first: dict[str, list[np.ndarray]] = {}
    labels: list[np.ndarray] = []
    for view in views:
        for name, rows in side.images(view).items():
            side.check_width(rows, classes)
            first.setdefault(name, []).append(most_similar(rows, classes, min(5, len(classes)))[1])
        labels.append(view.labels)
    truth = np.concatenate(labels) if labels else np.zeros(0, int)
    if not len(truth):
        raise ValueError("no image of the split can be decoded, so none can be named")
    named = {name: np.concatenate(parts) for name, parts in first.items()}
    top_1 = {name: float(np.mean(seen[:, 0] == truth)) for name, seen in named.items()}
    result = {
        "schema": 1,
        **side.as_result(),
        "images": len(truth),
        "classes": len(names),
        "templates": list(templates),
        "top_1": top_1,
        "top_5": {name: float((seen == truth[:, None]).any(axis=1).mean()) for name, seen in named.items()},
    }
    if "reconstructed" in named:
        result["loss_in_points"] = 100.0 * (top_1["x"] - top_1["reconstructed"])
        result["agreement"] = float(np.mean(named["x"][:, 0] == named["reconstructed"][:, 0]))
    return result


class ZeroShot:
    """The task; see the module."""

    Section = ZeroShotSection
    needs = ("features",)
    higher = ("top_1", "top_5", "agreement")

    def __init__(self, fae: FAE, streams: Streams):
        self.streams, self.settings = streams, fae.config.evaluation.zero_shot

    def check(self) -> None:
        self._names()
        _ = self.streams.text.tower

    def _names(self) -> list[str]:
        return read_names(self.settings.names, self.streams.source("heldout").classes)

    def run(self) -> Outcome:
        views = self.streams.views("heldout", "zero_shot", limit=self.settings.limit)
        names, templates = self._names(), tuple(self.settings.templates)
        return Outcome(evaluate_zero_shot(self.streams.text, views, names=names, templates=templates))
