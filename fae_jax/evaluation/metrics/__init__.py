"""Metrics: scores of a stream of images. The contract, and the table of kinds.

A kind is one file here, or an entry point in the group `fae_jax.metrics` of another package: a class with

    Section            where it has fields: `evaluation.metrics.<kind>`, a frozen dataclass of options
    higher             names in its result of which higher values are better; of all others lower ones are
    compares           what with: "reference", other images, whatever they are (where it is not given); "splits", the
                       training and held-out images of an experiment; "originals", of reconstructions; "nothing"
    build(section, classes) → a `Metric` that has taken in nothing; `section` is None where it has no fields

Tasks name the metrics they compute: `evaluation.generation.metrics`, `evaluation.reconstruction.metrics`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image

from fae_jax.files.progress import say
from fae_jax.kinds import find, names
from fae_jax.section import Plugs

METRICS = {
    "recognised": "fae_jax.evaluation.metrics.recognised:Recognised",
    "frechet": "fae_jax.evaluation.metrics.frechet:Frechet",
    "fid": "fae_jax.evaluation.metrics.fid:Fid",
    "sfid": "fae_jax.evaluation.metrics.fid:SFid",
    "inception_score": "fae_jax.evaluation.metrics.inception_score:InceptionScore",
    "precision_recall": "fae_jax.evaluation.metrics.precision_recall:PrecisionRecall",
    "kid": "fae_jax.evaluation.metrics.kid:Kid",
    "mind": "fae_jax.evaluation.metrics.mind:Mind",
    "cmmd": "fae_jax.evaluation.metrics.cmmd:Cmmd",
    "fdr6": "fae_jax.evaluation.metrics.fdr6:FDr6",
    "nearest": "fae_jax.evaluation.metrics.nearest:Nearest",
    "clip_score": "fae_jax.evaluation.metrics.clip_score:ClipScore",
    "digit_pairs": "fae_jax.evaluation.metrics.digit_pairs:DigitPairs",
    "fidelity": "fae_jax.evaluation.metrics.fidelity:Fidelity",
    "lpips": "fae_jax.evaluation.metrics.lpips:Lpips",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MetricsSection:
    """Settings of the metrics, a subsection for each that has any."""

    subsections: ClassVar[Plugs] = Plugs("metrics", METRICS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch:
    """Some images of a stream, at least one.

    Attributes:
      images: (k, y, x, 3), uint8.
      labels: (k,), from 0: the class of each; of samples the one that was asked for.
      originals: what each image is a reconstruction of, where it is one.
      among: (k,), which of them belong to an even choice of as many real images as there are samples; None: all.
      index: (k,), position of each in the whole stream, over all hosts; None: they come in order.
      again: walks the whole stream anew, over all hosts, where it can be: for metrics that cannot hold it.
      look: name of an extractor → its taps by name, (k, d) each; called when a metric first asks for that extractor.
        The experiment's own is "encoder", with the tap "mean": its patch features, averaged over the patches.
    """

    images: UInt8[np.ndarray, "k y x 3"]
    labels: Int[np.ndarray, " k"]
    originals: UInt8[np.ndarray, "k y x 3"] | None = None
    among: Bool[np.ndarray, " k"] | None = None
    index: Int[np.ndarray, " k"] | None = None
    again: Callable[[], Iterator[Batch]] | None = None
    look: Callable[[str], Mapping[str, np.ndarray]]
    _taps: dict[str, Mapping[str, np.ndarray]] = dataclasses.field(default_factory=dict, init=False, repr=False)
    _kept: dict[Any, np.ndarray] = dataclasses.field(default_factory=dict, init=False, repr=False)

    def taps(self, extractor: str) -> Mapping[str, Float[np.ndarray, "k d"]]:
        """What an extractor says of the images, once however many metrics ask.

        Raises:
          ValueError: there is no such extractor here.
        """
        if extractor not in self._taps:
            self._taps[extractor] = self.look(extractor)
        return self._taps[extractor]

    def tap(self, name: str) -> Float[np.ndarray, "k d"]:
        """One tap, EXTRACTOR:TAP, or EXTRACTOR where it has only one.

        Raises:
          ValueError: there is no such extractor or tap, or features are not finite.
        """
        extractor, _, tap = name.partition(":")
        taps = self.taps(extractor)
        if not tap and len(taps) == 1:
            (tap,) = taps
        try:
            features = taps[tap]  # which may say itself why it is not there
        except KeyError:
            known = ", ".join(f"{extractor}:{each}" for each in taps)
            raise ValueError(f"{name!r} is none of the taps {known}") from None
        bad = int(np.sum(~np.isfinite(features).all(axis=1)))
        if bad:
            raise ValueError(
                f"features {extractor}:{tap} of {bad} of {len(self.images)} images are not finite numbers"
            )
        return features

    def kept(self, name: str) -> Float[np.ndarray, "m d"]:
        """The rows of a tap that are `among`, float32: one array, however many metrics keep it."""
        if name not in self._kept:
            rows = self.tap(name)
            self._kept[name] = np.asarray(rows if self.among is None else rows[self.among], np.float32)
        return self._kept[name]

    def joined(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        """Rows kept of this and earlier batches as one array: the same, however many metrics join the same arrays."""
        key = tuple(map(id, parts))
        if key not in self._kept:
            self._kept[key] = np.concatenate(parts)
        return self._kept[key]


@runtime_checkable
class Metric(Protocol):
    """What is known of one stream of images so far. Parts of a stream may be taken in by several and merged."""

    def update(self, batch: Batch) -> None:
        """Takes in a batch."""
        ...

    def merge(self, other: Any) -> None:
        """Takes in what another one of the same kind has taken in."""
        ...

    def state(self) -> dict[str, np.ndarray]:
        """All that was taken in, as arrays: what goes to another host, or into a file of reference statistics."""
        ...

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Takes in the `state` of another one in place of what it has."""
        ...

    def result(self, real: Mapping[str, Any]) -> dict[str, Any]:
        """The scores by name, plain JSON values; no two metrics of a task may use the same name.

        A metric may also have `figures(real) → {name: (image, caption)}`.

        Args:
          real: metrics of the same kind that have taken in real images: "train" and "heldout" of an experiment, or
            "reference", whatever the images are compared with; empty where there are none.

        Raises:
          ValueError: nothing was taken in, or too little.
        """
        ...


def compares(name: str) -> str:
    """What a metric compares images with: see the module.

    Raises:
      ValueError: there is no such metric; the nearest is named.
    """
    return getattr(find("metrics", METRICS, name), "compares", "reference")


def compared_with(real: Mapping[str, Any], metric: str) -> tuple[str, Any]:
    """Name and metric of the real images that scores are against: "reference", else "train", else "heldout".

    Raises:
      ValueError: there are none.
    """
    for split in ("reference", "train", "heldout"):
        if split in real:
            return split, real[split]
    raise ValueError(
        f"the metric {metric!r} compares with real images, and there are none here: give a reference that holds "
        "images (mean and covariance alone serve fid and sfid)"
    )


def too_few(what: str, counts: Mapping[str, int], least: int) -> bool:
    """Whether one of the counts is below `least`, which is then also told: the score stands, and says little."""
    few = min(counts.values()) < least
    if few:
        told = ", ".join(f"{count} {name}" for name, count in counts.items())
        say(f"warning: {what} says little of so few images ({told})")
    return few


def with_prefix(states: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """States of several parts as one, PART/KEY."""
    return {f"{part}/{key}": value for part, state in states.items() for key, value in state.items()}


def by_prefix(
    state: Mapping[str, np.ndarray], split: Callable[[str, str], tuple[str, str, str]] = str.rpartition
) -> dict[str, dict[str, np.ndarray]]:
    """What `with_prefix` was made of; parts that held nothing are not there.

    Args:
      split: `str.rpartition` where names of parts may hold a slash, `str.partition` where names of keys may.
    """
    parts: dict[str, dict[str, np.ndarray]] = {}
    for name, value in state.items():
        part, _, key = split(name, "/")
        parts.setdefault(part, {})[key] = value
    return parts


def known_metrics(chosen: Any) -> str | None:
    """A check: one or more names of metrics, each once."""
    known = names("metrics", METRICS)
    fits = chosen and len(set(chosen)) == len(chosen) and all(name in known for name in chosen)
    return None if fits else f'holds different names of metrics, {", ".join(known)}; one is written ("{known[0]}",)'


def take_in(
    batches: Iterable[Batch], chosen: Sequence[str], section: Any, classes: Sequence[str]
) -> dict[str, Metric]:
    """The metrics called `chosen` after a stream; `section` is the configuration's `evaluation.metrics`.

    Raises:
      ValueError: a name is unknown, or a metric refuses a batch.
    """
    kinds = {name: find("metrics", METRICS, name) for name in chosen}
    metrics = {name: kind.build(getattr(section, name, None), classes) for name, kind in kinds.items()}
    for batch in batches:
        for metric in metrics.values():
            metric.update(batch)
    return metrics


def results(
    metrics: Mapping[str, Metric], real: Mapping[str, Mapping[str, Metric]]
) -> tuple[dict[str, Any], dict[str, tuple[Image.Image, str]]]:
    """(scores, figures with their captions) of a stream.

    Args:
      metrics: by name, after the stream.
      real: split → the same after that split's images; a reference of statistics alone lacks most of them.

    Raises:
      ValueError: two metrics use one name for a score.
    """
    scores: dict[str, Any] = {}
    figures: dict[str, tuple[Image.Image, str]] = {}
    for name, metric in metrics.items():
        beside = {split: of_split[name] for split, of_split in real.items() if name in of_split}
        values = metric.result(beside)
        twice = [key for key in values if key in scores]
        if twice:
            raise ValueError(f"two metrics call a score {twice[0]!r}, one of them {name!r}; leave one out")
        scores |= values
        if hasattr(metric, "figures"):
            figures |= metric.figures(beside)
    return scores, figures


def numbers_of(scores: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The scores among nested results: what is no count."""
    for name, value in scores.items():
        if isinstance(value, Mapping):
            yield from numbers_of(value, f"{prefix}{name}/")
        elif isinstance(value, float):
            yield prefix + name, value
