"""What tasks read: the images of an experiment, and samples of its generator, a batch at a time."""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Int, UInt8

from fae_jax.data.pixels import to_uint8
from fae_jax.data.prompts import draw_coco
from fae_jax.data.replacement import Readable
from fae_jax.data.sources.listing import Source
from fae_jax.evaluation.looks import Looks
from fae_jax.evaluation.metrics import Batch, Metric, by_prefix, with_prefix
from fae_jax.evaluation.text_side import TextSide
from fae_jax.evaluation.views import View, evenly, walk
from fae_jax.files.paths import Path
from fae_jax.files.storage import read_arrays
from fae_jax.files.writing import whole_file
from fae_jax.model import FAE
from fae_jax.parallel.hosts import wait_for_all
from fae_jax.stages.experiment import Experiment
from fae_jax.stages.sampling import Drawing, choose_labels, share


class Evaluators:
    """Extractors for the batches of a stream; they are opened when a metric first asks for one."""

    def __init__(self, looks: Callable[[], Looks]):
        self._make = looks
        self._asked: set[str] = set()

    @functools.cached_property
    def looks(self) -> Looks:
        """Made when something is first looked at."""
        return self._make()

    def of(
        self, images: UInt8[np.ndarray, "k y x 3"], mean: Callable[[], np.ndarray] | None = None
    ) -> Callable[[str], Mapping[str, np.ndarray]]:
        """`Batch.look` of some images; `mean` gives the tap of "encoder" where it is known already."""

        def look(name: str) -> Mapping[str, np.ndarray]:
            self._asked.add(name)
            return {"mean": mean()} if name == "encoder" and mean else self.looks.look(name, images)

        return look

    @property
    def origin(self) -> dict[str, dict[str, str]]:
        """Exact variants and hashes of weights of those that were asked for, by name."""
        return {name: self.looks.origin(name) for name in sorted(self._asked)}


def sampled(drawing: Drawing, evaluators: Evaluators) -> Iterator[Batch]:
    """Samples for metrics, as they are drawn."""
    for place, images, labels in drawing:
        index = np.arange(place, place + len(images))
        yield Batch(images=images, labels=labels, index=index, look=evaluators.of(images))


def asked(
    fae: FAE, heldout: Callable[[], Source], count: int
) -> tuple[Int[np.ndarray, " n"], Sequence[str] | None, Sequence[str], dict[str, Any]]:
    """What `count` samples to be scored are of: labels, the prompts that they number or None, their names, and
    {"captions": how they were drawn} where a file of captions is named.

    Classes are chosen as `sampling.labels` says. A generator that reads text is given captions of that file, drawn by
    `evaluation.seed`, or those of held-out images, in order: of each image its first, then of each its second.
    """
    config = fae.config
    if not fae.reads_text:
        classes = range(max(len(fae.classes), 1))
        return choose_labels(classes, count, config.sampling.labels, config.evaluation.seed), None, fae.classes, {}
    captions = config.evaluation.generation.captions
    if captions:
        prompts, about = draw_coco(captions, count, config.evaluation.seed)
        trained_on = config.data.mixture or ((config.data.source, config.data.path),)
        about |= {"zero_shot": all(kind != "coco" for kind, *_ in trained_on), "trained_on": trained_on}
        return np.arange(count, dtype=np.int32), prompts, prompts, {"captions": about}
    source = Readable(heldout())
    texts = [tuple(source[place]["captions"]) or ("",) for place in range(min(count, len(source)))]
    prompts = [texts[i % len(texts)][i // len(texts) % len(texts[i % len(texts)])] for i in range(count)]
    return np.arange(count, dtype=np.int32), prompts, prompts, {}


def drawn(
    fae: FAE,
    labels: Int[np.ndarray, " n"],
    settings: Any,
    evaluators: Evaluators,
    *,
    prompts: Sequence[str] | None = None,
    **how: Any,
) -> Iterator[Batch]:
    """Samples for metrics that are kept nowhere: this host's share of one for each label; `how` as `FAE.images`."""
    place, last = share(len(labels))
    if place == last:
        return
    request = labels[place:last] if prompts is None else [prompts[label] for label in labels[place:last]]
    condition = fae.generator.condition.request(request)
    for piece in fae.images(condition, settings, first=place, **how):
        images = to_uint8(piece)
        index = np.arange(place, place + len(images))
        yield Batch(images=images, labels=labels[index], index=index, look=evaluators.of(images))
        place += len(images)


def together(metrics: dict[str, Metric], directory: Path) -> dict[str, Metric]:
    """The metrics after what all hosts took in, in their order, on each of them; by files in `directory`/parts."""
    if jax.process_count() == 1:
        return metrics
    folder = directory / "parts"
    state: dict[str, Any] = with_prefix({name: metric.state() for name, metric in metrics.items()})
    with whole_file(folder / f"{jax.process_index()}.npz") as file:
        np.savez(file, **state)
    wait_for_all("every host's scores are there")
    whole: dict[str, Metric] = {}
    for host in range(jax.process_count()):
        states = by_prefix(read_arrays(str(folder / f"{host}.npz")), str.partition)
        for name, metric in metrics.items():
            part = copy.deepcopy(metric)
            part.restore(states.get(name, {}))
            if name in whole:
                whole[name].merge(part)
            else:
                whole[name] = part
    wait_for_all("every host's scores are read")
    (folder / f"{jax.process_index()}.npz").unlink()
    with contextlib.suppress(OSError):  # the last host removes it; in a bucket there is none
        folder.rmdir()
    return whole


class Streams:
    """The images of an experiment, and samples of its generator."""

    def __init__(self, fae: FAE, experiment: Experiment):
        self.fae, self._experiment = fae, experiment
        self.evaluators = Evaluators(lambda: Looks(fae))

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

    def views(
        self, split: str, what: str, *, limit: int = 0, layers: int = 0, part: tuple[int, int] | None = None
    ) -> Iterator[View]:
        """`walk` over a split; its stored features are read where there are any."""
        stored = None if layers else self._experiment.parts.stored_features(split)
        what = f"{what}: {split}"
        return walk(self.fae, self.source(split), what=what, limit=limit, layers=layers, part=part, stored=stored)

    def batches(self, split: str, what: str, samples: int = 0, whole: bool = False) -> Iterator[Batch]:
        """The real images of a split, for metrics: this host's share, or all. Of them, `samples` are `among` so many
        where there are more."""
        total = len(self.source(split))
        part = (0, total) if whole else share(total)
        seen = part[0]
        for view in self.views(split, what, part=part):
            count = len(view.images)
            among = evenly(seen, count, total, samples or total)
            if count:
                yield Batch(
                    images=view.images,
                    labels=view.labels,
                    among=among,
                    index=np.arange(seen, seen + count),
                    again=lambda: self.batches(split, what, samples, whole=True),
                    look=self.evaluators.of(view.images, lambda view=view: view.kept(view.features).mean(1)),
                )
            seen += count

    def drawing(self, name: str, labels: Int[np.ndarray, " n"], *, sampler: str, **how: Any) -> Drawing:
        """Samples that are kept in samples/NAME when they are drawn. An empty sampler is the configured; `how` as
        `Drawing` takes it."""
        folder = self._experiment.workdir.samples / (name + self._experiment.suffix)
        return Drawing(fae=self.fae, folder=folder, labels=labels, sampler=sampler or None, **how)

    def together(self, metrics: dict[str, Metric]) -> dict[str, Metric]:
        """See `together`."""
        return together(metrics, self._experiment.workdir.evaluation)

    @functools.cached_property
    def text(self) -> TextSide:
        """The text tower beside the encoder; read once for all tasks."""
        return TextSide(self.fae)
