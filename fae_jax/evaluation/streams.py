"""What tasks read: the images of an experiment, and samples of its generator, a batch at a time."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from fae_jax.data.pixels import to_pixels
from fae_jax.data.sources.listing import Source
from fae_jax.evaluation.metrics import Batch, look_of_encoder
from fae_jax.evaluation.text_side import TextSide
from fae_jax.evaluation.views import View, evenly, walk
from fae_jax.model import FAE
from fae_jax.stages.experiment import Experiment
from fae_jax.stages.sampling import draw


def samples(fae: FAE, images: UInt8[np.ndarray, "n y x 3"], labels: Int[np.ndarray, " n"]) -> Iterator[Batch]:
    """Images that are at hand, in batches of `sampling.batch`."""
    size = fae.config.sampling.batch
    for start in range(0, len(images), size):
        part = images[start : start + size]
        yield Batch(
            images=part,
            labels=labels[start : start + size],
            look=look_of_encoder(lambda part=part: np.asarray(fae.features(to_pixels(part))).mean((1, 2))),
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
                    again=lambda: self.batches(split, what, samples),
                    look=look_of_encoder(lambda view=view: view.kept(view.features).mean(1)),
                )

    def draw(
        self, name: str, labels: Int[np.ndarray, " n"], *, guidance: Any, sampler: str, seed: int
    ) -> tuple[Iterator[Batch], dict[str, Any]]:
        """Samples, kept in samples/NAME, for metrics; and how they were made. An empty sampler is the configured."""
        folder = self._experiment.workdir.samples / (name + self._experiment.suffix)
        drawn = draw(self.fae, folder, labels, guidance=guidance, sampler=sampler or None, seed=seed)
        return samples(self.fae, drawn["images"], labels), drawn["sampling"]

    @functools.cached_property
    def text(self) -> TextSide:
        """The text tower beside the encoder; read once for all tasks."""
        return TextSide(self.fae)
