"""What tasks read: the images of an experiment, and samples of its generator, a batch at a time."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from fae_jax.data.pixels import to_pixels
from fae_jax.data.sources.listing import Source
from fae_jax.evaluation.metrics import Batch, look_of_encoder
from fae_jax.evaluation.text_side import TextSide
from fae_jax.evaluation.views import View, evenly, walk
from fae_jax.model import FAE
from fae_jax.stages.experiment import Experiment
from fae_jax.stages.sampling import Drawing


def sampled(fae: FAE, drawing: Drawing) -> Iterator[Batch]:
    """Samples for metrics, as they are drawn."""
    for place, images, labels in drawing:
        yield Batch(
            images=images,
            labels=labels,
            index=np.arange(place, place + len(images)),
            look=look_of_encoder(lambda images=images: np.asarray(fae.features(to_pixels(images))).mean((1, 2))),
        )


class Streams:
    """The images of an experiment, and samples of its generator."""

    def __init__(self, fae: FAE, experiment: Experiment):
        self.fae, self._experiment = fae, experiment

    def source(self, split: str) -> Source:
        """The images of a split.

        Raises:
          ValueError, FileNotFoundError: they are not there, or none are held out.
        """
        return self._experiment.images.source(split)

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes, by label."""
        return self.source("heldout").classes

    def views(self, split: str, what: str, *, limit: int = 0, layers: int = 0) -> Iterator[View]:
        """`walk` over a split; its stored features are read where there are any."""
        stored = None if layers else self._experiment.parts.stored_features(split)
        return walk(self.fae, self.source(split), what=f"{what}: {split}", limit=limit, layers=layers, stored=stored)

    def batches(self, split: str, what: str, samples: int = 0) -> Iterator[Batch]:
        """The real images of a split, for metrics; `samples` of them, where there are more, are `among` so many."""
        seen, total = 0, len(self.source(split))
        for view in self.views(split, what):
            count = len(view.images)
            among = evenly(seen, count, total, samples or total)
            seen += count
            if count:
                yield Batch(
                    images=view.images,
                    labels=view.labels,
                    among=among,
                    look=look_of_encoder(lambda view=view: view.kept(view.features).mean(1)),
                )

    def drawing(self, name: str, labels: Int[np.ndarray, " n"], *, guidance: Any, sampler: str, seed: int) -> Drawing:
        """Samples that are kept in samples/NAME when they are drawn. An empty sampler is the configured."""
        folder = self._experiment.workdir.samples / (name + self._experiment.suffix)
        return Drawing(
            fae=self.fae, folder=folder, labels=labels, guidance=guidance, sampler=sampler or None, seed=seed
        )

    @functools.cached_property
    def text(self) -> TextSide:
        """The text tower beside the encoder; read once for all tasks."""
        return TextSide(self.fae)
