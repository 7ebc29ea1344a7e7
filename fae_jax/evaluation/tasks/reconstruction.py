"""Images through the latent and back.

`evaluation/reconstruction.json`: schema 1, and `sets.heldout` with the number of images and the scores of the metrics
chosen. The names of sets say which decoder and split; the first is what the page calls the reconstruction.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from fae_jax.evaluation.metrics import Batch, known_metrics, look_of_encoder, results, take_in
from fae_jax.evaluation.streams import Streams
from fae_jax.evaluation.tasks import Outcome
from fae_jax.evaluation.views import Examples
from fae_jax.model import FAE
from fae_jax.section import option
from fae_jax.stages.figures import reconstruction_pairs

FIGURE = 20  # images shown


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReconstructionSection:
    """Images beside their reconstructions."""

    metrics: tuple[Any, ...] = option(("fidelity",), "metrics computed", known_metrics)


class Reconstruction:
    """The task; see the module."""

    Section = ReconstructionSection
    needs = ("features", "pixels")
    higher = ()

    def __init__(self, fae: FAE, streams: Streams):
        self.fae, self.streams = fae, streams

    def check(self) -> None:
        self.streams.source("heldout")

    def run(self) -> Outcome:
        count = 0
        examples = Examples(FIGURE, len(self.streams.source("heldout")))

        def batches() -> Iterator[Batch]:
            nonlocal count
            for view in self.streams.views("heldout", "reconstruction"):
                if len(view.images):
                    count += len(view.images)
                    examples.add(view.images, view.decoded)
                    look = look_of_encoder(lambda view=view: view.kept(view.reconstructed).mean(1))
                    yield Batch(images=view.decoded, labels=view.labels, originals=view.images, look=look)

        fields = self.fae.config.evaluation
        metrics = take_in(batches(), fields.reconstruction.metrics, fields.metrics, self.streams.classes)
        scores, figures = results(metrics, {})
        result = {"schema": 1, "sets": {"heldout": {"count": count, **scores}}}
        return Outcome(result, {**figures, "reconstructions": reconstructions_figure(*examples.arrays())})


def reconstructions_figure(
    originals: UInt8[np.ndarray, "n y x 3"], rebuilt: UInt8[np.ndarray, "n y x 3"]
) -> tuple[Image.Image, str]:
    """Images over their reconstructions, in rows of ten, and the caption."""
    caption = "Unseen images, and what comes back through the latent."
    return reconstruction_pairs(originals, rebuilt), caption
