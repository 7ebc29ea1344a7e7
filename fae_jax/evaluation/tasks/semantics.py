"""Whether patches that are alike in x are alike in x̂ and in z; equations (1) and (2) of `fae_jax.evaluation.matches`.

`evaluation/semantics.json`:

    schema             1
    encoder            name and SHA-256 of its weights
    images             positions in the held-out split, pairs of one class (where there are classes) one after another
    queries            patches asked, in all images
    agreement_with_x   {reconstructed, z}:
        similarity_maps      mean correlation of map (1) there with map (1) in x
        matches              share of queries matched with the same patch as in x, equation (2)
        matches_within_one   … or with one that touches it
        match_error          mean distance between the two matches, in patches
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
from einops import rearrange

from fae_jax.data.replacement import Readable
from fae_jax.data.transforms import adm_centre_crop
from fae_jax.evaluation.matches import Matches
from fae_jax.evaluation.semantics_figures import semantics_figures
from fae_jax.evaluation.streams import Streams
from fae_jax.evaluation.tasks import Outcome
from fae_jax.evaluation.views import View
from fae_jax.model import FAE
from fae_jax.section import at_least, option

LOOK_AHEAD = 200  # images among which a partner of the same class is looked for


@dataclasses.dataclass(frozen=True, kw_only=True)
class SemanticsSection:
    """Similarity maps and matches of patches."""

    images: int = option(8, "held-out images shown, spread evenly over the split", at_least(2))
    patches: int = option(16, "foreground patches of an image that are looked for in the next one", at_least(1))


def choose_pairs(labels: Callable[[int], int], count: int, images: int) -> list[int]:
    """Positions of `images`/2 pairs spread evenly over `count` images; a pair is of one class where one is near.

    Args:
      labels: position → class; asked only of images near those that are chosen.
      count: images of the split.

    Raises:
      ValueError: there are fewer than two images.
    """
    if count < 2:
        raise ValueError(f"semantics compares images with each other; the held-out split has {count}")
    chosen: list[int] = []
    for first in np.linspace(0, count - 2, max(min(images, count) // 2, 1)).astype(int).tolist():
        near = [
            *range(first + 1, min(first + 1 + LOOK_AHEAD, count)),
            *range(first - 1, max(first - LOOK_AHEAD, -1), -1),
        ]
        alike = (place for place in near if place not in chosen and labels(place) == labels(first))
        chosen += [first, next(alike, first + 1)]
    return chosen


class Semantics:
    """The task; see the module."""

    Section = SemanticsSection
    needs = ("features",)
    higher = ("similarity_maps", "matches", "matches_within_one")

    def __init__(self, fae: FAE, streams: Streams):
        self.fae, self.streams, self.settings = fae, streams, fae.config.evaluation.semantics

    def check(self) -> None:
        self.streams.source("heldout")

    def run(self) -> Outcome:
        source = Readable(self.streams.source("heldout"))
        label = functools.cache(lambda place: int(source[place]["label"]))
        chosen = choose_pairs(label, len(source), self.settings.images)
        size, tokenizer = self.fae.config.data.image_size, self.fae.tokenizer
        images = np.stack([adm_centre_crop(source[place]["image"], size) for place in chosen])
        view = View(self.fae, {"image": images, "mask": np.ones(len(images), bool)})
        enter = tokenizer.space.enter
        spaces = {"x": enter(view.features), "reconstructed": enter(view.reconstructed), "z": view.latents}
        maps = {
            name: rearrange(np.asarray(tokens), "n (y x) d -> n y x d", y=tokenizer.grid[0])
            for name, tokens in spaces.items()
        }
        matched = Matches.of(maps, self.settings.patches)
        encoder = {"name": self.fae.encoder.name, "weights": self.fae.encoder.weights_hash}
        result = {"schema": 1, "encoder": encoder, "images": chosen, **matched.as_result()}
        return Outcome(result, semantics_figures(images, matched))
