"""The tasks of `fae evaluate`: from a trained FAE and its images to scores and figures in the working directory.

    probe            does x̂ still mean what x meant?           evaluation/probe.json
    retrieval        do captions still find their images?     evaluation/retrieval.json
    zero_shot        are classes known by their names?          evaluation/zero_shot.json
    semantics        are like patches still alike?              evaluation/semantics.json
    reconstruction   does the image come back?               evaluation/reconstruction.json
    generation       are samples right, lifelike and new?      evaluation/generation.json

All are over the held-out images; classifiers and neighbours come from the training images. Every task walks the
images by itself (`fae_jax.evaluation.views`) and needs no more stages than it uses.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from einops import rearrange

from fae_jax.data.pixels import to_pixels
from fae_jax.data.replacement import Readable
from fae_jax.data.sources.coco import CocoSource
from fae_jax.data.sources.kinds import open_source
from fae_jax.data.sources.listing import Source
from fae_jax.data.transforms import adm_centre_crop
from fae_jax.evaluation.agreement import Agreement
from fae_jax.evaluation.generation import LabelledImages, RealImages, Sampling, evaluate_samples, write_generation
from fae_jax.evaluation.judge import train_judge
from fae_jax.evaluation.own_head import OwnHead, check_head_classes
from fae_jax.evaluation.probe import Settings, evaluate_probe, write_probe
from fae_jax.evaluation.reconstruction import ReconstructionScores, write_reconstruction
from fae_jax.evaluation.retrieval import evaluate_retrieval
from fae_jax.evaluation.semantics import Semantics, choose_pairs
from fae_jax.evaluation.semantics_figures import write_semantics_figures
from fae_jax.evaluation.standard_figures import write_features, write_nearest, write_reconstructions
from fae_jax.evaluation.text_side import TextSide
from fae_jax.evaluation.vectors import Vectors, gather
from fae_jax.evaluation.views import View, walk
from fae_jax.evaluation.zero_shot import evaluate_zero_shot, read_names
from fae_jax.files.writing import write_result
from fae_jax.model import FAE
from fae_jax.stages.experiment import Experiment
from fae_jax.stages.sampling import balanced_labels, draw

# task → the stages it needs
TASKS = {
    "probe": ("features",),
    "retrieval": ("features",),
    "zero_shot": ("features",),
    "semantics": ("features",),
    "reconstruction": ("features", "pixels"),
    "generation": ("features", "pixels", "generator"),
}
SETS = {"unguided": None, "guided": "config"}  # sets of samples and their guidance


def evaluate(evaluation: Evaluation, task: str) -> dict[str, Any]:
    """Runs one task and writes its results; for generation the samples are drawn first."""
    if task != "generation":
        return getattr(evaluation, task)()
    fae, settings = evaluation.fae, evaluation.fae.config.evaluation
    labels = balanced_labels(range(len(fae.classes)), settings.samples)
    folder = evaluation.workdir.samples
    sets = {
        name: draw(fae, folder / name, labels, guidance=guidance, seed=settings.seed)
        for name, guidance in SETS.items()
    }
    return evaluation.generation(sets)


class Evaluation:
    """The tasks over one trained FAE. Each walks the images by itself and keeps no more than it needs."""

    def __init__(self, fae: FAE, experiment: Experiment):
        self.fae, self.images = fae, experiment.images
        self._stored = experiment.parts.stored_features
        self.workdir = experiment.workdir

    def _walk(self, split: str, what: str, *, limit: int = 0, layers: int = 0) -> Iterator[View]:
        stored = None if layers else self._stored(split)
        source, what = self.images.source(split), f"{what}: {split}"
        return walk(self.fae, source, what=what, limit=limit, layers=layers, stored=stored)

    def check(self, task: str) -> None:
        """Refuses what cannot be evaluated, before anything is computed or written.

        Raises:
          ValueError, FileNotFoundError: images or weights are not there, none are held out, there are no captions
            or no text tower, or a field does not fit them.
        """
        if task == "generation" and not self.fae.classes:
            raise ValueError(
                "task generation asks for classes, and this generator knows none (condition.kind=none): draw from it "
                "with `fae sample`"
            )
        if task in ("probe", "generation"):
            self.images.source("train")
        if task == "retrieval":
            self._captioned()
        else:
            self.images.source("heldout")
        if task in ("retrieval", "zero_shot"):
            _ = self._text_side.tower
        if task == "zero_shot":
            self._class_names()
        if task == "probe":
            check_head_classes(self.fae.config.evaluation.probe.head_classes, self.fae.config.data.classes)

    def probe(self) -> dict[str, Any]:
        """Understanding: see `fae_jax.evaluation.probe`."""
        fields = self.fae.config.evaluation.probe
        names = ("linear", "learning_rates", "steps", "batch", "neighbours", "temperature")
        settings = Settings(**{name: getattr(fields, name) for name in names}, seed=self.fae.config.evaluation.seed)
        encoder = self.fae.encoder
        blocks = fields.blocks if encoder.keep is not None else (1,)

        def vectors(split: str, also: Callable[[View], None]) -> Vectors:
            source = self.images.source(split)
            count = min(fields.limit or len(source), len(source))
            layers = max(blocks) if max(blocks) > 1 else 0
            views = self._walk(split, "probe", limit=fields.limit, layers=layers)
            return gather(views, count=count, latent_pooling=fields.latent_pooling, also=also)

        train = vectors("train", lambda view: None)
        token = None if train.tokens is None else train.tokens[:, -encoder.width :].mean(axis=0)
        head = OwnHead(self.fae, head_classes=fields.head_classes, mean_token=token) if encoder.head else None
        agreement = Agreement()
        first: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

        def look(view: View) -> None:
            x, reconstructed = view.kept(view.features), view.kept(view.reconstructed)
            agreement.add(x, reconstructed)
            if not first:
                first.append((view.images, x, reconstructed))
            if head:
                head.see(view)

        heldout = vectors("heldout", look)
        result = evaluate_probe(
            train, heldout, agreement, settings, latent_pooling=fields.latent_pooling, blocks=blocks
        )
        result["encoder"] = {"name": encoder.name, "weights": encoder.weights_hash}
        if head:
            result["own_head"] = head.as_result()
        write_features(self.workdir.root, *first[0], self.fae.tokenizer.grid)
        write_probe(self.workdir.root, result)
        return result

    @functools.cached_property
    def _text_side(self) -> TextSide:
        return TextSide(self.fae)

    def _captioned(self) -> Source:
        """The captioned images.

        Raises:
          ValueError, FileNotFoundError: there are none.
        """
        fields = self.fae.config.evaluation.retrieval
        if fields.source == "coco" and fields.path and fields.images:
            return CocoSource(fields.path, split="train", holdout=0.0, seed=0, images=fields.images)
        if fields.source:
            source = open_source(fields.source, path=fields.path or None, split="train", holdout=0.0, seed=0)
        else:
            source = self.images.source("heldout")
        if not getattr(source, "captioned", False):
            raise ValueError(
                f"the images of {fields.path or fields.source or 'this experiment'} have no captions; name "
                "captioned ones in evaluation.retrieval.source and evaluation.retrieval.path"
            )
        return source

    def _class_names(self) -> list[str]:
        return read_names(self.fae.config.evaluation.zero_shot.names, self.images.source("heldout").classes)

    def retrieval(self) -> dict[str, Any]:
        """Images by captions and captions by images: see `fae_jax.evaluation.retrieval`."""
        fields, source = self.fae.config.evaluation.retrieval, self._captioned()
        views = walk(self.fae, source, what="retrieval", limit=fields.limit)
        about = {"source": fields.source or self.fae.config.data.source, "fingerprint": source.fingerprint}
        result = evaluate_retrieval(self._text_side, views) | about
        write_result(self.workdir.evaluation / "retrieval.json", result)
        return result

    def zero_shot(self) -> dict[str, Any]:
        """Classes by their names: see `fae_jax.evaluation.zero_shot`."""
        fields = self.fae.config.evaluation.zero_shot
        views = self._walk("heldout", "zero_shot", limit=fields.limit)
        names, templates = self._class_names(), tuple(fields.templates)
        result = evaluate_zero_shot(self._text_side, views, names=names, templates=templates)
        write_result(self.workdir.evaluation / "zero_shot.json", result)
        return result

    def semantics(self) -> dict[str, Any]:
        """Which patches are alike: see `fae_jax.evaluation.semantics`."""
        fields, source = self.fae.config.evaluation.semantics, Readable(self.images.source("heldout"))
        label = functools.cache(lambda place: int(source[place]["label"]))
        chosen = choose_pairs(label, len(source), fields.images)
        size = self.fae.config.data.image_size
        images = np.stack([adm_centre_crop(source[place]["image"], size) for place in chosen])
        view = View(self.fae, {"image": images, "mask": np.ones(len(images), bool)})
        enter, grid = self.fae.tokenizer.space.enter, self.fae.tokenizer.grid
        spaces = {"x": enter(view.features), "reconstructed": enter(view.reconstructed), "z": view.latents}
        tokens = {name: np.asarray(value) for name, value in spaces.items()}
        maps = {name: rearrange(value, "n (y x) d -> n y x d", y=grid[0]) for name, value in tokens.items()}
        found = Semantics.of(maps, fields.patches)
        write_semantics_figures(self.workdir.root, images, found)
        encoder = {"name": self.fae.encoder.name, "weights": self.fae.encoder.weights_hash}
        result = {"schema": 1, "encoder": encoder, "images": chosen, **found.as_result()}
        write_result(self.workdir.evaluation / "semantics.json", result)
        return result

    def reconstruction(self) -> dict[str, Any]:
        """Images through the latent and back: see `fae_jax.evaluation.reconstruction`."""
        scores = ReconstructionScores()
        shown: list[np.ndarray] = []
        for view in self._walk("heldout", "reconstruction"):
            scores += ReconstructionScores.of(view.images, view.decoded)
            if not shown:
                shown = [view.images, view.decoded]
        result = scores.as_result()
        write_reconstructions(self.workdir.root, *shown)
        write_reconstruction(self.workdir.root, {"heldout": result})
        return result

    def generation(self, sets: dict[str, dict[str, Any]]) -> dict[str, Any]:
        """Samples of each set (see `draw`) against real images: see `fae_jax.evaluation.generation`."""
        real = RealImages.of(self._labelled("train"), self._labelled("heldout"))
        judge = train_judge(real.train.images, real.train.labels, real.heldout.images, real.heldout.labels)
        names = self.images.source("train").classes
        results = {}
        for name, drawn in sets.items():
            samples = self._described(drawn["images"], drawn["labels"])
            results[name] = evaluate_samples(
                samples, Sampling(**drawn["sampling"]), real=real, judge=judge, class_names=names
            )
        last = list(sets)[-1]
        write_nearest(self.workdir.root, last, sets[last]["images"], real.train.images, results[last]["nearest"])
        write_generation(self.workdir.root, results, judge=judge, class_names=names)
        return results

    @functools.cache  # noqa: B019 -- lives as long as the command
    def _labelled(self, split: str) -> LabelledImages:
        parts = [
            (view.images, view.labels, view.kept(view.features).mean(1)) for view in self._walk(split, "generation")
        ]
        images, labels, features = (np.concatenate(values) for values in zip(*parts, strict=True))
        return LabelledImages(images=images, labels=labels, features=features)

    def _described(self, images: np.ndarray, labels: np.ndarray) -> LabelledImages:
        size = self.fae.config.sampling.batch
        features = [
            np.asarray(self.fae.features(to_pixels(images[start : start + size]))).mean((1, 2))
            for start in range(0, len(images), size)
        ]
        return LabelledImages(images=images, labels=labels, features=np.concatenate(features))
