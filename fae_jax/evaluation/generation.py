"""Are the samples what was asked for, do they look like unseen real images, and are they new?

Three questions, three measurements, for one or several sets of samples (guided, unguided):

    recognised   fraction of samples that the judge takes for the class asked for          (judge.py)
    Fréchet      samples ↔ held-out beside train ↔ held-out, in the encoder's features     (frechet.py)
    nearest      distance to the nearest training image beside that of held-out images (nearest.py)

The Fréchet distance of real training images to held-out ones is what a perfect generator of as many images would
reach: the number to compare with, since the distance is biased by the number of images on either side.

`evaluation/generation.json` (`write_generation`):

    schema                    1
    class_names               name of each class, in the order of the labels
    judge                     kind, trained_on, heldout, heldout_accuracy, minimum_accuracy, trusted
    sets.NAME                 one per set of samples
      count                   number of samples
      sampling                sampler, steps, function_evaluations, guidance, label_policy, seed, and more
      accuracy                fraction recognised as the class asked for
      accuracy_per_class      class name → fraction, null where no sample was asked for
      count_per_class         class name → number of samples
      lowest_class            {name, accuracy} of the class recognised least
      frechet                 space, dimensions, samples, train, heldout (counts),
                              samples_to_heldout, train_to_heldout
      nearest                 as `CopyCheck.as_result`
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from fae_jax.evaluation.frechet import Moments, frechet_distance
from fae_jax.evaluation.judge import Judge
from fae_jax.evaluation.nearest import CopyCheck, Nearest, nearest
from fae_jax.files.paths import Path
from fae_jax.files.writing import write_result

SCHEMA = 1
LABEL_POLICIES = ("balanced", "random")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelledImages:
    """Images, their classes (for samples: the class asked for) and their features.

    Attributes:
      images: (n, y, x, 3), uint8.
      labels: (n,), from 0.
      features: (n, d), the encoder's patch features averaged over the patches.

    Raises:
      ValueError: the three differ in number, or there are none.
    """

    images: UInt8[np.ndarray, "n y x 3"]
    labels: Int[np.ndarray, " n"]
    features: Float[np.ndarray, "n d"]

    def __post_init__(self) -> None:
        counts = (len(self.images), len(self.labels), len(self.features))
        if len(set(counts)) > 1 or not counts[0]:
            raise ValueError(
                "images, labels and features must be as many and at least one, got {}, {}, {}".format(*counts)
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a set of samples was made; everything that moves a score is said here.

    Attributes:
      sampler: its name, as "euler" or "euler_maruyama".
      steps: steps of the sampler.
      function_evaluations: network calls made per sample, counted, the unguided branch included.
      guidance: 1.0 or "none" for unguided, a weight, or (until time, weight) intervals.
      label_policy: "balanced" (as many of each class, one more at most) or "random".
      seed: of the noise and of the labels.
      more: anything else worth keeping (EMA decay, timestep shift, checkpoint step), plain JSON values.

    Raises:
      ValueError: the label policy has no such name.
    """

    sampler: str
    steps: int
    function_evaluations: int
    guidance: Any
    label_policy: str
    seed: int
    more: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.label_policy not in LABEL_POLICIES:
            raise ValueError(f"label policy {self.label_policy!r} is unknown; use {' or '.join(LABEL_POLICIES)}")

    def as_result(self) -> dict[str, Any]:
        """What the result file says; `more` does not overrule the named fields."""
        named = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "more"}
        return {**self.more, **named}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RealImages:
    """The two sides that samples are measured against, with what depends on them alone computed once.

    Attributes:
      train: what the generator learnt from.
      heldout: what no stage ever saw.
      heldout_nearest: held-out → train.
      train_moments, heldout_moments: of their features.
    """

    train: LabelledImages
    heldout: LabelledImages
    heldout_nearest: Nearest
    train_moments: Moments
    heldout_moments: Moments

    @classmethod
    def of(cls, train: LabelledImages, heldout: LabelledImages) -> RealImages:
        """Measures the two sides."""
        return cls(
            train=train,
            heldout=heldout,
            heldout_nearest=nearest(heldout.images, train.images),
            train_moments=Moments.of(train.features),
            heldout_moments=Moments.of(heldout.features),
        )


def _check_policy(labels: np.ndarray, policy: str, classes: int) -> None:
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels run from {labels.min()} to {labels.max()}, but there are {classes} class names")
    counts = np.bincount(labels, minlength=classes)
    if policy == "balanced" and counts.max() - counts.min() > 1:
        raise ValueError(
            f"label policy 'balanced' does not describe {counts.min()} to {counts.max()} per class; say 'random'"
        )


def evaluate_samples(
    samples: LabelledImages, sampling: Sampling, *, real: RealImages, judge: Judge, class_names: Sequence[str]
) -> dict[str, Any]:
    """The scores of one set of samples: the entry `sets.NAME` of the result file, as plain JSON values.

    Raises:
      ValueError: a label has no class name, or the samples are not as balanced as `sampling` says.
    """
    _check_policy(samples.labels, sampling.label_policy, len(class_names))
    right = judge.recognise(samples.images) == samples.labels
    counts = {name: int(np.sum(samples.labels == label)) for label, name in enumerate(class_names)}
    known = {
        name: float(np.mean(right[samples.labels == label])) for label, name in enumerate(class_names) if counts[name]
    }
    accuracies = {name: known.get(name) for name in class_names}
    lowest = min(known, key=lambda name: known[name])
    return {
        "count": len(samples.images),
        "sampling": sampling.as_result(),
        "accuracy": float(np.mean(right)),
        "accuracy_per_class": accuracies,
        "count_per_class": counts,
        "lowest_class": {"name": lowest, "accuracy": accuracies[lowest]},
        "frechet": {
            "space": "the encoder's patch features, averaged over the patches",
            "dimensions": samples.features.shape[1],
            "samples": len(samples.images),
            "train": len(real.train.images),
            "heldout": len(real.heldout.images),
            "samples_to_heldout": frechet_distance(Moments.of(samples.features), real.heldout_moments),
            "train_to_heldout": frechet_distance(real.train_moments, real.heldout_moments),
        },
        "nearest": CopyCheck(
            samples=nearest(samples.images, real.train.images), heldout=real.heldout_nearest
        ).as_result(),
    }


def write_generation(
    workdir: Path, sets: Mapping[str, Mapping[str, Any]], *, judge: Judge, class_names: Sequence[str]
) -> Path:
    """Writes `evaluation/generation.json` atomically from the sets' `evaluate_samples`; returns its path.

    Raises:
      OSError: the working directory cannot be written; an earlier result is kept.
    """
    result = {"schema": SCHEMA, "class_names": list(class_names), "judge": judge.as_result(), "sets": dict(sets)}
    return write_result(workdir / "evaluation" / "generation.json", result)
