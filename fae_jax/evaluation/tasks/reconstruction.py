"""Images through the latent and back.

`evaluation/reconstruction.json`: schema 1, and for each set of `sets` the number of images and the scores of the
metrics chosen; `fid` among them is rFID, against the same images. The first set, `heldout`, is what the page calls
the reconstruction. With `evaluation.reconstruction.noise` there is one more for each σ, `noise_σ`, of what the pixel
decoder makes of noisy features,

    decoder(x + σ ε),   ε ~ N(0, 1),   x in the feature space, σ as in `pixels.noise`                  (1)

which says how much error in a latent it forgives. `evaluation/images/reconstruction.json` has the distances of each
image of `heldout`, in the order of the split.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8
from PIL import Image

from fae_jax.data.pixels import to_uint8
from fae_jax.evaluation.metrics import Batch, Metric, compares, known_metrics, results, take_in
from fae_jax.evaluation.metrics.fidelity import psnr
from fae_jax.evaluation.origin import metric_settings
from fae_jax.evaluation.streams import Streams
from fae_jax.evaluation.tasks import Outcome
from fae_jax.evaluation.tasks.generation import check_encoder
from fae_jax.evaluation.views import Examples, View
from fae_jax.model import FAE
from fae_jax.section import are_numbers, option
from fae_jax.stages.figures import line_chart, reconstruction_pairs
from fae_jax.stages.pixels import noise_level

SEEN, FIGURE = 100, 20  # images kept to choose from, images shown
EXTREMES = 10  # worst ones, and ones around the median


def _levels(value: Any) -> str | None:
    fits = are_numbers(value, len(value)) and all(sigma >= 0 for sigma in value) and len(set(value)) == len(value)
    return None if fits else "holds different numbers of at least 0"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReconstructionSection:
    """Images beside their reconstructions."""

    metrics: tuple[Any, ...] = option(("fidelity",), "metrics computed", known_metrics)
    noise: tuple[Any, ...] = option(
        (), "also from features with this noise, each σ a set of its own, in units of pixels.noise", _levels
    )


class Reconstruction:
    """The task; see the module."""

    Section = ReconstructionSection
    needs = ("features", "pixels")
    higher = ()

    def __init__(self, fae: FAE, streams: Streams):
        self.fae, self.streams, self.fields = fae, streams, fae.config.evaluation.reconstruction

    def check(self) -> None:
        check_encoder(self.fae.config, self.fields.metrics)
        if self.fields.noise and not hasattr(self.fae.tokenizer, "pixel_decoder"):
            raise ValueError(
                f"field evaluation.reconstruction.noise={self.fields.noise}: the tokenizer "
                f"{self.fae.config.tokenizer.kind!r} has no pixel decoder that reads features; leave it ()"
            )
        self.streams.source("heldout")

    def run(self) -> Outcome:
        fields, evaluators = self.fae.config.evaluation, self.streams.evaluators
        chosen, classes = self.fields.metrics, self.streams.classes
        with_others = [name for name in chosen if compares(name) == "reference"]
        real = self.streams.batches("heldout", "reconstruction") if with_others else ()
        originals = take_in(real, with_others, fields.metrics, classes)
        total = len(self.streams.source("heldout"))
        sets: dict[str, dict[str, Metric]] = {}
        seen, count = Seen(total), 0
        for view in self.streams.views("heldout", "reconstruction"):
            if not len(view.images):
                continue
            for name, decoded in self._decoded(view):
                sets.setdefault(name, take_in((), chosen, fields.metrics, classes))
                mean = (lambda view=view: view.kept(view.reconstructed).mean(1)) if name == "heldout" else None
                look = evaluators.of(decoded, mean)
                batch = Batch(images=decoded, labels=view.labels, originals=view.images, look=look)
                for metric in sets[name].values():
                    metric.update(batch)
            seen.add(view.images, view.decoded)
            count += len(view.images)
        scored = {name: results(metrics, {"reference": originals}) for name, metrics in sets.items()}
        of_sets = {name: {"count": count, **scores} for name, (scores, _) in scored.items()}
        each: dict[str, np.ndarray] = {}
        for metric in sets["heldout"].values():
            each |= metric.each() if hasattr(metric, "each") else {}
        figures = {**scored["heldout"][1], **seen.figures()}
        if self.fields.noise and "fidelity" in chosen:
            line = [(sigma, of_sets[f"noise_{sigma:g}"]["psnr"]) for sigma in sorted(self.fields.noise)]
            chart = line_chart({"painted from noisy features": line}, x="noise of the features, σ", y="PSNR, dB")
            figures["noise"] = chart, "PSNR of what the pixel decoder makes of features with noise."
        origin = {
            "evaluators": evaluators.origin,
            "weights": self.fae.hashes((*self.fae.tokenizer.encodes, *self.fae.tokenizer.decodes)),
            "heldout": self.streams.source("heldout").fingerprint,
            "metrics": metric_settings(chosen, fields.metrics),
        }
        return Outcome(
            {"schema": 1, "sets": of_sets}, figures, origin, {name: values.tolist() for name, values in each.items()}
        )

    def _decoded(self, view: View) -> Iterator[tuple[str, UInt8[np.ndarray, "k y x 3"]]]:
        """What comes back of a batch, by set."""
        yield "heldout", view.decoded
        for sigma in self.fields.noise:
            yield f"noise_{sigma:g}", view.kept(to_uint8(self._noisy(view.features, view.index, float(sigma))))

    @functools.cached_property
    def _noisy(self) -> Callable[..., Array]:
        """Equation (1), compiled: (x, position of each image, σ) → images."""
        tokenizer, config = self.fae.tokenizer, self.fae.config
        params = self.fae.parts.params("pixel_decoder")
        unit = noise_level(tokenizer, dataclasses.replace(config.pixels, noise=1.0))
        seed = jax.random.key(config.evaluation.seed)

        @jax.jit
        def paint(
            params: Any, features: Float[Array, "b n d"], index: Array, sigma: Array
        ) -> Float[Array, "b y x 3"]:
            keys = jax.vmap(functools.partial(jax.random.fold_in, seed))(index)
            noise = jax.vmap(lambda key: jax.random.normal(key, features.shape[1:]))(keys)
            noisy = tokenizer.space.enter(features) + sigma * unit * noise
            return jnp.clip(tokenizer.pixel_decoder.apply({"params": params}, noisy), -1, 1)

        return functools.partial(paint, params)


class Seen:
    """What figures show of a walk over `total` images: an even choice, the worst by PSNR, and some around the median.

    The last ones are those nearest to it of an even choice of `SEEN`, so that no more is ever held.
    """

    def __init__(self, total: int):
        self._some = Examples(SEEN, total)
        self._values: list[np.ndarray] = []
        self._worst: tuple[np.ndarray, ...] = ()

    def add(self, originals: UInt8[np.ndarray, "k y x 3"], rebuilt: UInt8[np.ndarray, "k y x 3"]) -> None:
        """Takes in the walk's next images."""
        values = psnr(originals, rebuilt)
        self._values.append(values)
        self._some.add(values, originals, rebuilt)
        new = (values, originals, rebuilt)
        joined = [np.concatenate(pair) for pair in zip(self._worst, new, strict=True)] if self._worst else new
        lowest = np.argsort(joined[0], kind="stable")[:EXTREMES]
        self._worst = tuple(part[lowest] for part in joined)

    def figures(self) -> dict[str, tuple[Image.Image, str]]:
        """Figures and captions by name."""
        some, median = self._some.arrays(), float(np.median(np.concatenate(self._values)))
        chosen = np.unique(np.linspace(0, len(some[0]) - 1, FIGURE).round().astype(int))
        near = np.argsort(np.abs(some[0] - median), kind="stable")[: len(self._worst[0])]
        values, *pairs = (np.concatenate([low, part[near]]) for low, part in zip(self._worst, some, strict=True))
        caption = (
            f"Above, the {len(near)} unseen images that come back worst, of PSNR {values[0]:.1f} to "
            f"{values[len(near) - 1]:.1f} dB; below, {len(near)} around the median, {median:.1f} dB."
        )
        return {
            "reconstructions": reconstructions_figure(some[1][chosen], some[2][chosen]),
            "worst_and_median": (reconstruction_pairs(*pairs, columns=len(near)), caption),
        }


def reconstructions_figure(
    originals: UInt8[np.ndarray, "n y x 3"], rebuilt: UInt8[np.ndarray, "n y x 3"]
) -> tuple[Image.Image, str]:
    """Images over their reconstructions, in rows of ten, and the caption."""
    caption = "Unseen images, and what comes back through the latent."
    return reconstruction_pairs(originals, rebuilt), caption
