"""Scores of anybody's samples beside a reference, without an experiment.

A reference is images (`fae_jax.evaluation.image_sets`), or an `.npz` file of statistics:

    mu, sigma, mu_s, sigma_s    mean and covariance for FID and sFID, as ADM publishes them; the images arr_0 beside
                                them, where there are any, are some of those and serve the other metrics
    about, METRIC/…             what `make_reference` writes: the state of each metric, and in `about`, as JSON, the
                                images and extractors it is of

The result of `score`:

    schema      1
    samples     {path, count, size, sha256}
    reference   the same, or {path, sha256} of statistics; null where no metric compares
    scores      what the metrics say, see `fae_jax.evaluation.metrics`
    origin      see `fae_jax.evaluation.origin`
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fae_jax.evaluation.image_sets import ImageSet, open_images
from fae_jax.evaluation.looks import Looks
from fae_jax.evaluation.metrics import METRICS, Batch, Metric, by_prefix, compares, results, take_in, with_prefix
from fae_jax.evaluation.origin import metric_settings, origin_of
from fae_jax.evaluation.streams import Evaluators
from fae_jax.files.image_archives import IMAGES, LABELS
from fae_jax.files.paths import as_path
from fae_jax.files.storage import from_root, read_arrays
from fae_jax.files.writing import whole_file
from fae_jax.kinds import find
from fae_jax.weights import hash_tree

ABOUT = "about"
SAME_SIZE = "compare images of one resolution, since every network resizes what it sees"


def check_metrics(chosen: Sequence[str]) -> None:
    """Refuses metrics that cannot be had of images and a reference alone.

    Raises:
      ValueError: one is unknown (the nearest is named) or needs an experiment.
    """
    for name in chosen:
        needs = compares(name)
        if needs in ("splits", "originals"):
            what = {"splits": "training and held-out images", "originals": "the originals of reconstructions"}[needs]
            raise ValueError(
                f"the metric {name!r} needs {what} of an experiment: `fae evaluate --workdir W --task …`"
            )


class _Side:
    """One side of a comparison: a set of images, and the metrics after it."""

    def __init__(self, images: ImageSet, chosen: Sequence[str], config: Any, evaluators: Evaluators):
        self.images = images
        self.metrics = take_in(
            self._batches(config.sampling.batch, evaluators), chosen, config.evaluation.metrics, ()
        )

    def _batches(self, size: int, evaluators: Evaluators) -> Iterator[Batch]:
        seen = 0
        for images, labels in self.images.batches(size):
            index = np.arange(seen, seen + len(images))
            yield Batch(images=images, labels=labels, index=index, look=evaluators.of(images))
            seen += len(images)

    @property
    def about(self) -> dict[str, Any]:
        images = self.images
        return {"path": images.path, "count": images.count, "size": list(images.size), "sha256": images.sha256}


def make_reference(file: str, samples: str, chosen: Sequence[str], config: Any, side: int | None) -> dict[str, Any]:
    """Writes what the metrics called `chosen` know of images into an `.npz` file; returns what is `about` it.

    Args:
      config: its `sampling.batch` and `evaluation.metrics` are read.
      side: see `open_images`.

    Raises:
      ValueError, FileNotFoundError: see `open_images` and `check_metrics`.
    """
    check_metrics(chosen)
    if not file.endswith(".npz"):
        raise ValueError(f"--make_reference {file}: name a file that ends in .npz")
    begun, evaluators = time.monotonic(), Evaluators(Looks)
    known = _Side(open_images(samples, side), chosen, config, evaluators)
    facts = {"images": known.about, "evaluators": evaluators.origin}
    about = {**facts, "origin": origin_of(facts, time.monotonic() - begun)}
    state: dict[str, Any] = with_prefix({name: metric.state() for name, metric in known.metrics.items()})
    state[ABOUT] = np.array(json.dumps(about))
    with whole_file(as_path(file)) as out:
        np.savez(out, **state)
    return {"reference": file, "metrics": list(chosen), **about}


def score(
    samples: str, reference: str | None, chosen: Sequence[str], config: Any, side: int | None = None
) -> dict[str, Any]:
    """The result that the module describes.

    Args:
      samples, reference: as the command line has them.
      chosen: names of metrics.
      config: its `sampling.batch` and `evaluation.metrics` are read.
      side: of the samples, where they are a data source.

    Raises:
      ValueError: they cannot be read, do not fit each other, or are too few for a metric.
      FileNotFoundError: they, or weights of an extractor, are not there.
    """
    check_metrics(chosen)
    begun, evaluators = time.monotonic(), Evaluators(Looks)
    images = open_images(samples, side)
    real, about = known_reference(reference, chosen, images.size, config, evaluators)  # first: it may be refused
    ours = _Side(images, chosen, config, evaluators)
    scores, _ = results(ours.metrics, {"reference": real})
    facts = {
        "samples": ours.about,
        "reference": about,
        "metrics": metric_settings(chosen, config.evaluation.metrics),
        "evaluators": evaluators.origin,
    }
    origin = origin_of(facts, time.monotonic() - begun)
    return {"schema": 1, "samples": ours.about, "reference": about, "scores": scores, "origin": origin}


def known_reference(
    path: str | None, chosen: Sequence[str], size: tuple[int, int], config: Any, evaluators: Evaluators
) -> tuple[dict[str, Metric], Any]:
    """The metrics of what samples are compared with, and what is said of it.

    Args:
      size: of the samples, (y, x).

    Raises:
      ValueError: it does not hold what the metrics need, has images of another size, or other networks saw them.
    """
    kinds = {name: find("metrics", METRICS, name) for name in chosen}
    if path is None:
        compared = [name for name in chosen if compares(name) == "reference"]
        if compared:
            raise ValueError(f"{', '.join(compared)} compare with real images: name them with --reference")
        return {}, None
    arrays = read_arrays(from_root(path), without=(*IMAGES, *LABELS)) if path.endswith(".npz") else {}
    if ABOUT in arrays:
        return _made_reference(path, kinds, size, arrays, config, evaluators)
    known, about = {}, {}
    for name, kind in kinds.items():
        if all(key in arrays for key in getattr(kind, "keys", ("",))):
            known[name] = kind.of_statistics(arrays)
    if known:
        about = {"path": path, "statistics": sorted(known), "sha256": hash_tree(arrays)}
    rest = [name for name in chosen if name not in known]
    if not rest:
        return known, about
    try:
        images = open_images(path, size[0])
    except ValueError as error:
        if arrays:
            held = ", ".join(arrays)
            raise ValueError(f"{path} holds {held[:100]}, and {', '.join(rest)} need images: {error}") from error
        raise
    if images.size != size:
        raise ValueError(f"the samples are {_by(size)} pixels, and {path} is {_by(images.size)}: {SAME_SIZE}")
    side = _Side(images, rest, config, evaluators)
    return {**known, **side.metrics}, {**about, "images": side.about} if known else side.about


def _made_reference(
    path: str,
    kinds: Mapping[str, Any],
    size: tuple[int, int],
    arrays: dict[str, np.ndarray],
    config: Any,
    evaluators: Evaluators,
) -> tuple[dict[str, Metric], dict[str, Any]]:
    """The same of a file that `make_reference` wrote."""
    try:
        about = json.loads(str(arrays.pop(ABOUT)))
        theirs = tuple(about["images"]["size"])
        networks = {name: each["weights_hash"] for name, each in about["evaluators"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error!r}); make it anew with --make_reference") from error
    states = by_prefix(arrays, str.partition)
    missing = [name for name in kinds if name not in states]
    if missing:
        raise ValueError(
            f"{path} was made for {', '.join(states)}, not for {', '.join(missing)}: make it anew with "
            f"--make_reference {path} --metrics {' '.join(kinds)}"
        )
    if theirs != size:
        raise ValueError(f"the samples are {_by(size)} pixels, and {path} was made of {_by(theirs)}: {SAME_SIZE}")
    for name, weights in networks.items():
        with contextlib.suppress(FileNotFoundError):  # not asked for by these metrics, or told when they ask
            ours = evaluators.looks.origin(name)["weights_hash"]
            if ours != weights:
                raise ValueError(
                    f"{path} was made with other weights of {name} ({weights[:12]}, and these are {ours[:12]}): make "
                    "it anew, or bring those weights"
                )
    known: dict[str, Metric] = {}
    for name, kind in kinds.items():
        known[name] = kind.build(getattr(config.evaluation.metrics, name, None), ())
        known[name].restore(states[name])
    return known, {"path": path, "sha256": hash_tree(arrays), **about}


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}×{size[1]}"
