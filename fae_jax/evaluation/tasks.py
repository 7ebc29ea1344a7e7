"""The tasks of `fae evaluate`: from a trained FAE and its pictures to scores and figures in the working directory.

    probe            does x̂ still mean what x meant?           evaluation/probe.json
    reconstruction   does the picture come back?               evaluation/reconstruction.json
    generation       are samples right, lifelike and new?      evaluation/generation.json

All are over the held-out pictures; classifiers and neighbours come from the training pictures.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from einops import rearrange

from fae_jax.evaluation.figures import (
    class_grid,
    feature_maps,
    least_and_most,
    nearest_pairs,
    reconstruction_pairs,
    write_figure,
)
from fae_jax.evaluation.generation import LabelledPictures, RealPictures, Sampling, evaluate_samples, write_generation
from fae_jax.evaluation.judge import train_judge
from fae_jax.evaluation.nearest import CopyCheck, nearest
from fae_jax.evaluation.probe import Tokens, evaluate_probe, write_probe
from fae_jax.evaluation.reconstruction import evaluate_reconstruction, write_reconstruction
from fae_jax.model import FAE
from fae_jax.stages.experiment import to_pixels, to_uint8
from fae_jax.workdir import write_json

SHOWN = 12  # pictures in a figure


class Evaluation:
    """The pictures of both splits with what the networks say of them, computed once and shared by the tasks."""

    def __init__(self, fae: FAE):
        self.fae = fae
        self.workdir = fae.experiment.workdir

    @functools.cache  # noqa: B019 -- lives as long as the command
    def _split(self, split: str) -> dict[str, np.ndarray]:
        """image (uint8), label, features, latents, reconstructed, decoded (uint8) over a whole split, in order."""
        parts: dict[str, list[np.ndarray]] = {}
        batch_size = self.fae.config.sampling.batch
        with self.fae.experiment.ordered(split, batch_size) as batches:
            for batch in batches:
                kept = batch["mask"]
                images = to_pixels(batch["image"])
                latents = self.fae.encode(images)
                values = {
                    "image": batch["image"],
                    "label": batch["label"],
                    "features": self.fae.features(images),
                    "latents": latents,
                    "reconstructed": self.fae.reconstruct_features(latents),
                    "decoded": to_uint8(self.fae.decode(latents)),
                }
                for name, value in values.items():
                    array = np.asarray(value)
                    tokens = rearrange(array, "b y x d -> b (y x) d") if array.dtype == np.float32 else array
                    parts.setdefault(name, []).append(tokens[kept])
        return {name: np.concatenate(values) for name, values in parts.items()}

    def _tokens(self, split: str) -> Tokens:
        known = self._split(split)
        return Tokens(
            features=known["features"],
            latents=known["latents"],
            labels=known["label"],
            reconstructed=known["reconstructed"],
        )

    def probe(self) -> dict[str, Any]:
        """Understanding: see `fae_jax.evaluation.probe`."""
        result = evaluate_probe(self._tokens("train"), self._tokens("heldout"))
        known = self._shown()
        figure = feature_maps(known["image"], known["features"], known["reconstructed"], self.fae.networks.grid)
        write_figure(self.workdir.root, "features", figure, "Held-out pictures, their features, and those after z")
        write_probe(self.workdir.root, result)
        return result

    def reconstruction(self) -> dict[str, Any]:
        """Pictures through the latent and back: see `fae_jax.evaluation.reconstruction`."""
        known = self._split("heldout")
        scores = evaluate_reconstruction([(known["image"], known["decoded"])]).as_result()
        shown = self._shown()
        figure = reconstruction_pairs(shown["image"], shown["decoded"])
        write_figure(self.workdir.root, "reconstructions", figure, "Held-out pictures, through the latent and back")
        write_reconstruction(self.workdir.root, {"heldout": scores})
        return scores

    def generation(self, sets: dict[str, dict[str, Any]]) -> dict[str, Any]:
        """Samples of each set (see `draw`) against real pictures: see `fae_jax.evaluation.generation`."""
        real = RealPictures.of(self._labelled("train"), self._labelled("heldout"))
        judge = train_judge(real.train.images, real.train.labels, real.heldout.images, real.heldout.labels)
        names = self.fae.experiment.source("train").classes
        results = {}
        for name, drawn in sets.items():
            samples = self._described(drawn["images"], drawn["labels"])
            results[name] = evaluate_samples(
                samples, Sampling(**drawn["sampling"]), real=real, judge=judge, class_names=names
            )
        self._draw_nearest(list(sets.values())[-1]["images"], real)
        write_generation(self.workdir.root, results, judge=judge, class_names=names)
        return results

    def _draw_nearest(self, images: np.ndarray, real: RealPictures) -> None:
        check = CopyCheck(samples=nearest(images, real.train.images), heldout=real.heldout_nearest)
        distances = check.samples.distance
        rows = least_and_most(distances, 2 * SHOWN)
        figure = nearest_pairs(
            images[rows], real.train.images, check.samples.index[rows], distances[rows], check.close[rows]
        )
        caption = "Samples (left) and the training picture nearest to each (right): the nearest first, then all along"
        write_figure(self.workdir.root, "nearest", figure, caption)

    def _shown(self) -> dict[str, np.ndarray]:
        """A few held-out pictures, evenly spread, with everything known of them."""
        known = self._split("heldout")
        rows = np.linspace(0, len(known["label"]) - 1, min(SHOWN, len(known["label"]))).astype(int)
        return {name: values[rows] for name, values in known.items()}

    def _labelled(self, split: str) -> LabelledPictures:
        known = self._split(split)
        return LabelledPictures(images=known["image"], labels=known["label"], features=known["features"].mean(1))

    def _described(self, images: np.ndarray, labels: np.ndarray) -> LabelledPictures:
        size = self.fae.config.sampling.batch
        features = [
            np.asarray(self.fae.features(to_pixels(images[start : start + size]))).mean((1, 2))
            for start in range(0, len(images), size)
        ]
        return LabelledPictures(images=images, labels=labels, features=np.concatenate(features))


def draw(
    fae: FAE,
    name: str,
    labels: np.ndarray,
    *,
    sampler: str | None,
    steps: int | None,
    guidance: Any,
    seed: int,
    average: str | None = "",
    label_policy: str,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Samples one image per label into `samples/NAME/`: samples.npz, grid.png and settings.json.

    Returns:
      {"images": uint8 (n, y, x, 3), "labels": (n,), "sampling": what `Sampling` takes}.
    """
    made = fae.sampler(sampler, steps)
    images = to_uint8(
        fae.generate(labels, guidance=guidance, seed=seed, sampler=made, average=average, progress=progress)
    )
    sampling = {
        "sampler": sampler or fae.config.sampling.sampler,
        "steps": steps or fae.config.sampling.steps,
        "function_evaluations": fae.evaluations(made, guidance),
        "guidance": fae.config.sampling.guidance if guidance == "config" else guidance,
        "label_policy": label_policy,
        "seed": seed,
        "more": {"average": average or "slowest", "shift": fae.config.sampling.shift},
    }
    folder = fae.experiment.workdir.samples / name
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "samples.npz", images=images, labels=labels)
    class_grid(images, labels, fae.experiment.source("train").classes).save(folder / "grid.png")
    write_json(folder / "settings.json", {**sampling, "count": len(labels)})
    return {"images": images, "labels": labels, "sampling": sampling}
