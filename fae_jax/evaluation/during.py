"""Scores of a few samples while a generator trains, in its curve: every so many steps, of the same noise.

Samples and scores draw no random number of the training's, so that its curve is bitwise the one without them. One
program serves all steps; encoder and decoders stay on the devices between. Of several hosts each draws its share,
with the whole model on its own devices, and all score the one set.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fae_jax.data.sources.listing import Source
from fae_jax.evaluation.foreign import known_reference
from fae_jax.evaluation.looks import Looks
from fae_jax.evaluation.metrics import Batch, Metric, compares, known_metrics, numbers_of, results, take_in
from fae_jax.evaluation.streams import Evaluators, asked, drawn, together
from fae_jax.evaluation.views import evenly, walk
from fae_jax.model import FAE
from fae_jax.parallel.hosts import on_own_devices
from fae_jax.section import at_least, option
from fae_jax.stages.experiment import Experiment
from fae_jax.stages.sampling import share
from fae_jax.training.optimizer import best_params
from fae_jax.training.state import TrainState


@dataclasses.dataclass(frozen=True, kw_only=True)
class DuringSection:
    """Scores while a generator trains."""

    every: int = option(0, "steps of the generator between scores; 0 = none", at_least(0))
    samples: int = option(2000, "images per score, and real ones they are compared with", at_least(2))
    steps: int = option(50, "steps of sampling.sampler", at_least(2))
    metrics: tuple[Any, ...] = option(("frechet",), "metrics computed", known_metrics)

    def check(self) -> None:
        for name in self.metrics:
            if compares(name) not in ("reference", "nothing"):
                raise ValueError(f"metrics={self.metrics} must need no more than real images; leave {name!r} out")


class Some:
    """An even choice of `count` images of a source."""

    def __init__(self, source: Source, count: int):
        self._source, total = source, len(source)
        self._places = np.flatnonzero(evenly(0, total, total, count))
        self.classes, self.fingerprint = source.classes, source.fingerprint

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, position: int) -> dict[str, Any]:
        return self._source[int(self._places[position])] | {"index": np.int64(position)}


class During:
    """state → scores by name, which a stage's trainer calls.

    Raises:
      ValueError, FileNotFoundError: the images, or weights of a metric's network, are not there.
    """

    def __init__(self, experiment: Experiment):
        parts = experiment.parts.here
        self._fae, self._fields = FAE(parts), experiment.config.evaluation
        self._directory = experiment.workdir.evaluation
        fields = self._fields.during
        self._evaluators = Evaluators(lambda: Looks(self._fae))
        self._settings = self._fae.settings(steps=fields.steps)
        self._labels, self._prompts, self._names, _ = asked(
            self._fae, lambda: experiment.images.source("heldout"), fields.samples
        )
        text = ("text",) if self._fae.reads_text else ()
        self._frozen = {part: parts.params(part) for part in (*self._fae.tokenizer.decodes, *text)}
        self._real = self._reference(experiment)

    def _reference(self, experiment: Experiment) -> Mapping[str, Metric]:
        chosen = [name for name in self._fields.during.metrics if compares(name) == "reference"]
        data, size = experiment.config.data, experiment.config.data.image_size
        apart = self._fields.generation.reference
        if apart or not chosen:
            return known_reference(apart or None, chosen, (size, size), experiment.config, self._evaluators)[0]
        source = experiment.images.source("heldout" if data.holdout or data.heldout_path else "train")
        return self._taken(self._images(Some(source, self._fields.during.samples)), chosen, source.classes)

    def _images(self, source: Some) -> Iterator[Batch]:
        """This host's share of real images."""
        part = share(len(source))
        seen = part[0]
        for view in walk(self._fae, source, what="real images to score by", part=part):
            index = np.arange(seen, seen + len(view.images))
            if len(index):
                yield Batch(
                    images=view.images, labels=view.labels, index=index, look=self._evaluators.of(view.images)
                )
            seen += len(index)

    def _taken(self, batches: Iterator[Batch], chosen: Sequence[str], names: Sequence[str]) -> dict[str, Metric]:
        return together(take_in(batches, chosen, self._fields.metrics, names), self._directory)

    def __call__(self, state: TrainState) -> dict[str, float]:
        generator = on_own_devices(best_params(state, "generator"), self._fae.parts.mesh)
        params = {**self._frozen, "generator": generator}
        how: dict[str, Any] = {"seed": self._fields.seed, "params": params, "prompts": self._prompts}
        samples = drawn(self._fae, self._labels, self._settings, self._evaluators, **how)
        taken = self._taken(samples, self._fields.during.metrics, self._names)
        scores, _ = results(taken, {"reference": self._real})
        return {f"scores/{name}": value for name, value in numbers_of(scores)}


def scorer(experiment: Experiment) -> Callable[[TrainState], dict[str, float]] | None:
    """What `Experiment.scorer` is; None where no scores are asked for.

    Raises:
      ValueError, FileNotFoundError: see `During`; or no stage has trained what decodes samples.
    """
    return During(experiment) if experiment.config.evaluation.during.every else None
