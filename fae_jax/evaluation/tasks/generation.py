"""Are the samples what was asked for, do they look like unseen real images, and are they new?

For one or several sets of samples (unguided, guided), of classes as `sampling.labels` says:

    recognised   share of samples that the judge takes for the class asked for
    frechet      samples ↔ held-out beside as many train ↔ held-out, in the encoder's features
    nearest      distance to the nearest training image beside that of held-out images

`evaluation/generation.json`:

    schema                    2
    class_names               name of each class, in the order of the labels
    sets.NAME                 one per set of samples
      count                   number of samples
      sampling                sampler, steps, function_evaluations, guidance, label_policy, seed, and more
      …                       the scores of the metrics chosen: see `fae_jax.evaluation.metrics`
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from fae_jax.conditions import make_condition
from fae_jax.diffusion.samplers import SAMPLERS
from fae_jax.evaluation.metrics import Batch, Metric, known_metrics, results, take_in
from fae_jax.evaluation.origin import metric_settings
from fae_jax.evaluation.streams import Streams, sampled
from fae_jax.evaluation.tasks import Outcome, check_heldout
from fae_jax.model import FAE
from fae_jax.section import one_of, option
from fae_jax.stages.sampling import choose_labels

SETS = {"unguided": None, "guided": "config"}  # sets of samples and their guidance
SAMPLER = one_of("", *SAMPLERS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerationSection:
    """Samples beside real images."""

    metrics: tuple[Any, ...] = option(("recognised", "frechet", "nearest"), "metrics computed", known_metrics)
    unguided_sampler: str = option(
        "euler_maruyama", "sampler of the unguided set, in the paper the SDE's; empty = sampling.sampler", SAMPLER
    )
    guided_sampler: str = option("", "sampler of the guided set; empty = sampling.sampler", SAMPLER)


class Generation:
    """The task; see the module."""

    Section = GenerationSection
    needs = ("features", "pixels", "generator")
    higher = ()
    together = True

    def __init__(self, fae: FAE, streams: Streams):
        self.fae, self.streams = fae, streams

    @staticmethod
    def possible(config: Any) -> None:
        check_heldout(config)
        if not make_condition(config).classes:
            raise ValueError(
                f"it asks for classes, and this generator knows none (condition.kind={config.condition.kind}): draw "
                "from it with `fae sample`"
            )

    def check(self) -> None:
        for split in ("train", "heldout"):
            self.streams.source(split)

    def run(self) -> Outcome:
        fields, classes = self.fae.config.evaluation, self.streams.classes
        policy = self.fae.config.sampling.labels
        labels = choose_labels(range(len(self.fae.classes)), fields.samples, policy, fields.seed)
        samplers = {"unguided": fields.generation.unguided_sampler, "guided": fields.generation.guided_sampler}
        drawings = {
            name: self.streams.drawing(name, labels, guidance=guidance, sampler=samplers[name], seed=fields.seed)
            for name, guidance in SETS.items()
        }
        real = {
            split: self._taken(self.streams.batches(split, "generation", fields.samples))
            for split in ("train", "heldout")
        }
        sets: dict[str, Any] = {}
        figures: dict[str, Any] = {}
        for name, drawing in drawings.items():
            scores, figures = results(self._taken(sampled(drawing, self.streams.evaluators)), real)
            sets[name] = {"count": len(labels), "sampling": drawing.origin, **scores}
        last = f"{list(sets)[-1].capitalize()} samples. "  # the set whose figures are kept
        figures = {figure: (image, last + caption) for figure, (image, caption) in figures.items()}
        origin = {
            "sets": {name: each["sampling"] for name, each in sets.items()},
            "samples": len(labels),
            "metrics": metric_settings(fields.generation.metrics, fields.metrics),
            "evaluators": self.streams.evaluators.origin,
            "real": {split: self.streams.source(split).fingerprint for split in real},
        }
        return Outcome({"schema": 2, "class_names": list(classes), "sets": sets}, figures, origin)

    def _taken(self, batches: Iterator[Batch]) -> dict[str, Metric]:
        """The metrics after a stream, over all hosts."""
        fields = self.fae.config.evaluation
        taken = take_in(batches, fields.generation.metrics, fields.metrics, self.streams.classes)
        return self.streams.together(taken)
