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

import jax
import numpy as np
from einops import rearrange

from fae_jax.evaluation.figures import class_grid
from fae_jax.evaluation.generation import LabelledPictures, RealPictures, Sampling, evaluate_samples, write_generation
from fae_jax.evaluation.judge import train_judge
from fae_jax.evaluation.probe import Tokens, evaluate_probe, write_probe
from fae_jax.evaluation.reconstruction import evaluate_reconstruction, write_reconstruction
from fae_jax.evaluation.standard_figures import write_features, write_nearest, write_reconstructions
from fae_jax.model import FAE
from fae_jax.networks import count_parameters
from fae_jax.stages.experiment import to_pixels, to_uint8
from fae_jax.workdir import write_json


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
        known = self._split("heldout")
        parts = (known["image"], known["features"], known["reconstructed"])
        write_features(self.workdir.root, *parts, self.fae.networks.grid)
        write_probe(self.workdir.root, result)
        return result

    def reconstruction(self) -> dict[str, Any]:
        """Pictures through the latent and back: see `fae_jax.evaluation.reconstruction`."""
        known = self._split("heldout")
        scores = evaluate_reconstruction([(known["image"], known["decoded"])]).as_result()
        write_reconstructions(self.workdir.root, known["image"], known["decoded"])
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
        last = list(sets)[-1]
        write_nearest(self.workdir.root, last, sets[last]["images"], real.train.images, results[last]["nearest"])
        write_generation(self.workdir.root, results, judge=judge, class_names=names)
        return results

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


def write_sizes(fae: FAE) -> None:
    """Writes `sizes.json`: shapes of picture, features and latent, and parameters by network."""
    size, (rows, columns) = fae.config.data.image_size, fae.networks.grid
    counts = count_parameters(fae.networks)
    counts["generator"] = counts.pop("dit")
    counts["encoder"] = sum(leaf.size for leaf in jax.tree.leaves(fae.encoder.params))
    sizes = {
        "image": [size, size, 3],
        "features": [rows, columns, fae.networks.width],
        "latent": [rows, columns, fae.networks.compressor.latent_width],
        "parameters": counts,
    }
    write_json(fae.experiment.workdir.root / "sizes.json", sizes)


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
