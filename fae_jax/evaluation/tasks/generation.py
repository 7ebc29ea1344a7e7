"""Are the samples what was asked for, do they look like unseen real images, and are they new?

For one or several sets of samples (unguided, guided), of classes as `sampling.labels` says, or of captions of
held-out images where the generator reads text:

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
from collections.abc import Iterator, Sequence
from typing import Any

from fae_jax.conditions import make_condition, reads_text
from fae_jax.data.sources.coco import read_captions
from fae_jax.data.sources.listing import SPLITS
from fae_jax.diffusion.samplers import SAMPLERS
from fae_jax.evaluation.foreign import known_reference
from fae_jax.evaluation.metrics import Batch, Metric, compares, known_metrics, results, take_in
from fae_jax.evaluation.origin import metric_settings
from fae_jax.evaluation.streams import Streams, asked, sampled
from fae_jax.evaluation.tasks import Outcome, check_heldout
from fae_jax.model import FAE
from fae_jax.section import one_of, option
from fae_jax.tokenizers import tokenizer_kind

SETS = {"unguided": None, "guided": "config"}  # sets of samples and their guidance
SAMPLER = one_of("", *SAMPLERS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerationSection:
    """Samples beside real images."""

    metrics: tuple[Any, ...] = option(("recognised", "frechet", "nearest"), "metrics computed", known_metrics)
    reference: str = option(
        "",
        "what metrics compare with, as --reference names it: ADM's .npz, one made once, images; empty = the training "
        "images, read each time",
    )
    captions: str = option(
        "",
        "COCO's captions_val2014.json, of which evaluation.seed draws evaluation.samples; empty = those of held-out "
        "images",
        path=True,
    )
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
        check_possible(config, config.evaluation.generation.metrics)

    def check(self) -> None:
        check_real(self.streams, self.fae.config, self.fae.config.evaluation.generation.metrics)

    def run(self) -> Outcome:
        fields, classes = self.fae.config.evaluation, self.fae.classes
        labels, prompts, names, about = asked(self.fae, lambda: self.streams.source("heldout"), fields.samples)
        samplers = {"unguided": fields.generation.unguided_sampler, "guided": fields.generation.guided_sampler}
        drawings = {
            name: self.streams.drawing(
                name, labels, prompts=prompts, guidance=guidance, sampler=samplers[name], seed=fields.seed
            )
            for name, guidance in SETS.items()
        }
        real, reference = real_side(self.fae, self.streams, fields.generation.metrics, len(labels))
        sets: dict[str, Any] = {}
        figures: dict[str, Any] = {}
        for name, drawing in drawings.items():
            samples = sampled(drawing, self.streams.evaluators)
            metrics = taken(self.fae, self.streams, samples, fields.generation.metrics, names)
            scores, figures = results(metrics, real)
            sets[name] = {"count": len(labels), "sampling": {**drawing.result, **about}, **scores}
        last = f"{list(sets)[-1].capitalize()} samples. "  # the set whose figures are kept
        figures = {figure: (image, last + caption) for figure, (image, caption) in figures.items()}
        origin = {
            "sets": {name: drawing.origin for name, drawing in drawings.items()},
            "samples": len(labels),
            "metrics": metric_settings(fields.generation.metrics, fields.metrics),
            "evaluators": self.streams.evaluators.origin,
            "real": {split: self.streams.source(split).fingerprint for split in SPLITS if split in real},
            "reference": reference,
        }
        return Outcome({"schema": 2, "class_names": list(classes), "sets": sets}, figures, origin)


def _from_images(config: Any, chosen: Sequence[str]) -> list[str]:
    """The metrics that look at the experiment's own images."""
    apart = config.evaluation.generation.reference
    return [name for name in chosen if compares(name) == "splits" or (compares(name) == "reference" and not apart)]


def check_possible(config: Any, chosen: Sequence[str]) -> None:
    """Refuses an experiment whose samples can never be scored by the metrics called `chosen`.

    Raises:
      ValueError: it says what to do.
    """
    fields, compared = config.evaluation.generation, any(compares(name) == "reference" for name in chosen)
    if fields.captions and not reads_text(config):
        raise ValueError("this generator reads no text: leave evaluation.generation.captions out")
    if fields.captions and compared and not fields.reference:
        raise ValueError(
            "evaluation.generation.captions is of other images than this experiment's: name those in "
            "evaluation.generation.reference"
        )
    if _from_images(config, chosen):
        check_heldout(config)
    if reads_text(config):
        if not config.data.captions:
            raise ValueError("it asks for captions, and data.captions=False has none")
        if "recognised" in chosen:
            raise ValueError("recognised judges classes, and this generator reads text: leave it out of the metrics")
        if not fields.captions:
            check_heldout(config)
    elif not make_condition(config).classes:
        raise ValueError(
            f"it asks for classes, and this generator knows none (condition.kind={config.condition.kind}): draw "
            "from it with `fae sample`"
        )
    check_encoder(config, chosen)
    if any(compares(name) == "originals" for name in chosen):
        raise ValueError("samples have no originals: leave fidelity out of its metrics")


def check_encoder(config: Any, chosen: Sequence[str]) -> None:
    """Refuses metrics that look through the experiment's own encoder where its tokenizer has none.

    Raises:
      ValueError: it names the field.
    """
    own = "frechet" in chosen and "encoder" in config.evaluation.metrics.frechet.extractors
    if own and not hasattr(tokenizer_kind(config), "encoder"):
        raise ValueError(
            f"the tokenizer {config.tokenizer.kind!r} has no encoder to compare in: set evaluation.metrics.frechet."
            'extractors to other ones, such as ("inception:pool_3",)'
        )


def check_real(streams: Streams, config: Any, chosen: Sequence[str]) -> None:
    """Opens the captions that are asked for and the images that metrics look at.

    Raises:
      ValueError, FileNotFoundError: they are not there.
    """
    if config.evaluation.generation.captions:
        read_captions(config.evaluation.generation.captions)
    for split in SPLITS if _from_images(config, chosen) else ():
        streams.source(split)


def real_side(
    fae: FAE, streams: Streams, chosen: Sequence[str], samples: int
) -> tuple[dict[str, dict[str, Metric]], Any]:
    """The metrics after the training and held-out images, and of the reference; and what is said of that one.

    Args:
      samples: how many they are compared with.
    """
    config = fae.config
    fields, size = config.evaluation, config.data.image_size
    apart = fields.generation.reference
    own = _from_images(config, chosen)
    real, about = {}, None
    if apart:
        rest = [name for name in chosen if compares(name) == "reference"]
        real["reference"], about = known_reference(apart, rest, (size, size), config, streams.evaluators)
    for split in SPLITS if own else ():
        real[split] = taken(fae, streams, streams.batches(split, "real images", samples), own, fae.classes)
    return real, about


def taken(
    fae: FAE, streams: Streams, batches: Iterator[Batch], chosen: Sequence[str], names: Sequence[str]
) -> dict[str, Metric]:
    """The metrics after a stream, over all hosts; `names` are what labels stand for."""
    return streams.together(take_in(batches, chosen, fae.config.evaluation.metrics, names))
