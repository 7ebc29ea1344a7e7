"""Images through the latent and back.

`evaluation/reconstruction.json`: schema 1, and `sets.heldout` with the number of images and the scores of the metrics
chosen; `fid` among them is rFID, against the same images. The names of sets say which decoder and split; the first is
what the page calls the reconstruction.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from fae_jax.evaluation.metrics import Batch, compares, known_metrics, results, take_in
from fae_jax.evaluation.origin import metric_settings
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
        fields, evaluators, count = self.fae.config.evaluation, self.streams.evaluators, 0
        chosen = fields.reconstruction.metrics
        with_others = [name for name in chosen if compares(name) == "reference"]
        real = self.streams.batches("heldout", "reconstruction") if with_others else ()
        originals = take_in(real, with_others, fields.metrics, self.streams.classes)
        examples = Examples(FIGURE, len(self.streams.source("heldout")))

        def batches() -> Iterator[Batch]:
            nonlocal count
            for view in self.streams.views("heldout", "reconstruction"):
                if len(view.images):
                    count += len(view.images)
                    examples.add(view.images, view.decoded)
                    look = evaluators.of(view.decoded, lambda view=view: view.kept(view.reconstructed).mean(1))
                    yield Batch(images=view.decoded, labels=view.labels, originals=view.images, look=look)

        metrics = take_in(batches(), chosen, fields.metrics, self.streams.classes)
        scores, figures = results(metrics, {"reference": originals})
        result = {"schema": 1, "sets": {"heldout": {"count": count, **scores}}}
        origin = {
            "evaluators": evaluators.origin,
            "weights": self.fae.hashes((*self.fae.tokenizer.encodes, *self.fae.tokenizer.decodes)),
            "heldout": self.streams.source("heldout").fingerprint,
            "metrics": metric_settings(chosen, fields.metrics),
        }
        return Outcome(result, {**figures, "reconstructions": reconstructions_figure(*examples.arrays())}, origin)


def reconstructions_figure(
    originals: UInt8[np.ndarray, "n y x 3"], rebuilt: UInt8[np.ndarray, "n y x 3"]
) -> tuple[Image.Image, str]:
    """Images over their reconstructions, in rows of ten, and the caption."""
    caption = "Unseen images, and what comes back through the latent."
    return reconstruction_pairs(originals, rebuilt), caption
