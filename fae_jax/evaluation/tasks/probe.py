"""Do reconstructed features still mean what the encoder's features meant?

A classifier is trained on the encoder's own features x of the training images, then shown held-out x and, as it is,
the reconstruction x̂. What it loses on the way is the meaning that the latent z did not carry:

    loss in points = 100 (accuracy(x) − accuracy(x̂))                                          (1)

Classifiers: a linear one (`sgd`: `fae_jax.evaluation.linear_probe`; `logistic`: logistic regression on standardised
vectors, for thousands of images), nearest neighbours (`fae_jax.evaluation.voting`), and the encoder's own head
(`fae_jax.evaluation.own_head`). Beside them: the same classifiers trained anew on x̂ and on z, and the cosine and
explained variance of `fae_jax.evaluation.agreement`.

`evaluation/probe.json`:

    schema               2
    encoder              name and SHA-256 of its weights
    train, heldout       numbers of images
    linear               held-out accuracies of x, of reconstructed (by the classifier of x), of reconstructed_own (by
                         one of its own) and of z; loss_in_points: equation (1); inputs: what else the encoder offers,
                         by name (class tokens of the last k blocks, with or without the mean patch)
    nearest_neighbour    the same for the first number of voters, k; by_k: for each
    own_head             see `fae_jax.evaluation.own_head`, where the encoder has a classifier
    own_pooling          linear and nearest neighbours on the encoder's own pooled vector, where it has one that reads
                         patches
    cosine, explained_variance   held-out
    pooling              {x, z}: "mean" over patches or "flat"
    protocol             how the linear classifier was trained
    converged            logistic only: whether its training came to its end
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fae_jax.evaluation.agreement import Agreement
from fae_jax.evaluation.linear_probe import Parts, rows_of, train_probes
from fae_jax.evaluation.own_head import OwnHead, check_head_classes
from fae_jax.evaluation.streams import Streams
from fae_jax.evaluation.tasks import Outcome
from fae_jax.evaluation.vectors import Vectors, gather
from fae_jax.evaluation.views import Examples, View
from fae_jax.evaluation.voting import vote
from fae_jax.model import FAE
from fae_jax.section import above, at_least, one_of, option, whole_numbers
from fae_jax.stages.figures import feature_maps

PENALTY, ITERATIONS = 1.0, 2000  # C and iteration limit of the logistic regression
FIGURE = 10  # images shown
CAPTION = (
    "Unseen images, their features x, and the same features after the latent. Red, green and blue are the three "
    "directions in which x varies most, the same for both: equal colours are equal features."
)

# DINOv2's learning rates of a linear probe
RATES = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbeSection:
    """Classifiers on x, x̂ and z."""

    linear: str = option(
        "sgd",
        "sgd: DINOv2's protocol; logistic: regression, for thousands of images",
        one_of("sgd", "logistic"),
    )
    latent_pooling: str = option(
        "mean", "pooling of z's tokens: mean, or flat (one after the other)", one_of("mean", "flat")
    )
    blocks: tuple[Any, ...] = option(
        (1, 4),
        "class tokens of the last so many blocks, where the encoder has one",
        whole_numbers(1, some=True),
    )
    learning_rates: tuple[Any, ...] = option(
        RATES,
        "tried at once; the best on the held-out images counts",
        lambda rates: (
            None if rates and all(isinstance(r, float) and r > 0 for r in rates) else "holds numbers above 0"
        ),
    )
    steps: int = option(12_500, "steps of SGD", at_least(1))
    batch: int = option(1024, "images of a step of SGD; each learning rate is multiplied by batch/256", at_least(1))
    neighbours: tuple[Any, ...] = option(
        (10, 20), "voters of the nearest-neighbour rule", whole_numbers(1, some=True)
    )
    temperature: float = option(0.07, "temperature of their votes", above(0))
    head_classes: tuple[Any, ...] = option(
        (), "classes of the encoder's own head that the data's classes are, in order", whole_numbers(0)
    )
    limit: int = option(0, "images of a split at most, the first ones; 0 = all", at_least(0))


def protocol(settings: ProbeSection) -> dict[str, Any]:
    """What the result says of the linear classifier's training."""
    if settings.linear == "logistic":
        return {"linear": "logistic regression on standardised vectors", "C": PENALTY}
    return {
        "linear": "SGD, momentum 0.9, cosine to 0, no weight decay; best learning rate on the held-out images",
        "learning_rates": list(settings.learning_rates),
        "learning_rate_scale": "batch / 256",
        "steps": settings.steps,
        "batch": settings.batch,
        "views": "centre crop, one per image",
    }


class Linear:
    """A linear classifier of training vectors; of several learning rates, the best on the held-out vectors.

    Args:
      train, heldout: the vectors, in parts side by side.
      train_labels, heldout_labels: their classes.
    """

    def __init__(
        self,
        train: Parts,
        train_labels: Int[np.ndarray, " n"],
        heldout: Parts,
        heldout_labels: Int[np.ndarray, " m"],
        settings: ProbeSection,
        seed: int = 0,
    ):
        self.learning_rate: float | None = None
        self.converged = True
        if settings.linear == "logistic":
            model = make_pipeline(StandardScaler(), LogisticRegression(C=PENALTY, max_iter=ITERATIONS))
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", ConvergenceWarning)
                model.fit(_double(train), train_labels)
            self.converged = not any(issubclass(warning.category, ConvergenceWarning) for warning in caught)
            self._predict = lambda parts: model.predict(_double(parts))
        else:
            probes = train_probes(
                train,
                train_labels,
                int(train_labels.max()) + 1,
                learning_rates=settings.learning_rates,
                steps=settings.steps,
                batch=settings.batch,
                seed=seed,
            )
            best = int(np.argmax(probes.accuracies(heldout, heldout_labels)))
            self.learning_rate = probes.rates[best]
            self._predict = lambda parts: probes.predict(parts)[best]
        self.accuracy = self.on(heldout, heldout_labels)

    def on(self, parts: Parts, labels: Int[np.ndarray, " m"]) -> float:
        """The share of vectors it gives their label."""
        return float(np.mean(self._predict(parts) == labels))


def _double(parts: Parts) -> Float[np.ndarray, "n d"]:
    return rows_of(parts, slice(None)).astype(np.float64)


def inputs(vectors: Vectors, blocks: tuple[int, ...]) -> dict[str, Parts]:
    """What DINOv2's protocol probes beside the mean patch: class tokens of the last k blocks, without and with it."""
    if vectors.tokens is None:
        return {}
    width = vectors.x.shape[1]
    more: dict[str, Parts] = {}
    for count in blocks:
        tokens = vectors.tokens[:, -count * width :]
        more[f"class {count}"] = (tokens,)
        more[f"class {count} + mean patch"] = (tokens, vectors.x)
    return more


def evaluate_linear(
    train: Vectors, heldout: Vectors, settings: ProbeSection, blocks: tuple[int, ...] = (), seed: int = 0
) -> tuple[dict[str, Any], bool]:
    """The entry `linear` of the result, and whether all training came to its end."""
    labels = train.labels, heldout.labels

    def fit(ours: Parts, theirs: Parts) -> Linear:
        return Linear(ours, labels[0], theirs, labels[1], settings, seed)

    of_x = fit((train.x,), (heldout.x,))
    own = fit((train.reconstructed,), (heldout.reconstructed,))
    of_z = fit((train.z,), (heldout.z,))
    result: dict[str, Any] = {
        "x": of_x.accuracy,
        "reconstructed": of_x.on((heldout.reconstructed,), labels[1]),
        "reconstructed_own": own.accuracy,
        "z": of_z.accuracy,
    }
    result["loss_in_points"] = 100.0 * (result["x"] - result["reconstructed"])
    theirs = inputs(heldout, blocks)
    more = {name: fit(parts, theirs[name]) for name, parts in inputs(train, blocks).items()}
    if settings.linear == "sgd":
        rates = {"x": of_x, "reconstructed_own": own, "z": of_z, **more}
        result["learning_rates"] = {name: linear.learning_rate for name, linear in rates.items()}
    if more:
        result["inputs"] = {name: linear.accuracy for name, linear in more.items()}
    return result, all(linear.converged for linear in (of_x, own, of_z, *more.values()))


def evaluate_neighbours(train: Vectors, heldout: Vectors, settings: ProbeSection) -> dict[str, Any]:
    """The entry `nearest_neighbour` of the result."""
    pairs = {
        "x": (heldout.x, train.x),
        "reconstructed": (heldout.reconstructed, train.x),
        "reconstructed_own": (heldout.reconstructed, train.reconstructed),
        "z": (heldout.z, train.z),
    }
    return _voted(pairs, train.labels, heldout.labels, settings)


def _voted(
    pairs: Mapping[str, tuple[np.ndarray, np.ndarray]], voters: np.ndarray, labels: np.ndarray, settings: ProbeSection
) -> dict[str, Any]:
    counts = sorted({min(count, len(voters)) for count in settings.neighbours})
    by_k: dict[str, dict[str, float]] = {str(count): {} for count in counts}
    for name, (queries, references) in pairs.items():
        voted = vote(queries, references, voters, neighbours=counts, temperature=settings.temperature)
        for count, classes in voted.items():
            by_k[str(count)][name] = float(np.mean(classes == labels))
    return {**by_k[str(counts[0])], "k": counts[0], "temperature": settings.temperature, "by_k": by_k}


def evaluate_pooling(train: Vectors, heldout: Vectors, settings: ProbeSection, seed: int = 0) -> dict[str, Any]:
    """The entry `own_pooling` of the result: the encoder's own pooled vectors of x and x̂."""
    assert train.pooled is not None and heldout.pooled is not None and heldout.pooled_reconstructed is not None
    linear = Linear((train.pooled,), train.labels, (heldout.pooled,), heldout.labels, settings, seed)
    scores = {"x": linear.accuracy, "reconstructed": linear.on((heldout.pooled_reconstructed,), heldout.labels)}
    pairs = {"x": (heldout.pooled, train.pooled), "reconstructed": (heldout.pooled_reconstructed, train.pooled)}
    return {
        "width": train.pooled.shape[1],
        "linear": {**scores, "loss_in_points": 100.0 * (scores["x"] - scores["reconstructed"])},
        "nearest_neighbour": _voted(pairs, train.labels, heldout.labels, settings),
    }


def evaluate_probe(
    train: Vectors,
    heldout: Vectors,
    agreement: Agreement,
    settings: ProbeSection,
    *,
    blocks: tuple[int, ...] = (),
    seed: int = 0,
) -> dict[str, Any]:
    """The probe's result, as plain JSON values (see the top of this file), without `encoder` and `own_head`.

    Args:
      train: what the classifiers learn from; heldout: what they are examined on.
      agreement: of the held-out x and x̂.
      blocks: see `inputs`.

    Raises:
      ValueError: fewer than two classes to tell apart.
    """
    if len(np.unique(train.labels)) < 2:
        raise ValueError("a probe needs images of at least 2 classes to train on")
    linear, converged = evaluate_linear(train, heldout, settings, blocks, seed)
    result = {
        "schema": 2,
        "train": len(train.labels),
        "heldout": len(heldout.labels),
        "linear": linear,
        "nearest_neighbour": evaluate_neighbours(train, heldout, settings),
        "cosine": agreement.cosine,
        "explained_variance": agreement.explained_variance,
        "pooling": {"x": "mean", "z": settings.latent_pooling},
        "protocol": protocol(settings),
    }
    if train.pooled is not None:
        result["own_pooling"] = evaluate_pooling(train, heldout, settings, seed)
    return {**result, "converged": converged} if settings.linear == "logistic" else result


class Probe:
    """The task; see the module."""

    Section = ProbeSection
    needs = ("features",)
    higher = (
        "x", "reconstructed", "reconstructed_own", "z", "inputs", "agreement", "cosine", "explained_variance"
    )  # fmt: skip

    def __init__(self, fae: FAE, streams: Streams):
        self.fae, self.streams, self.settings = fae, streams, fae.config.evaluation.probe

    def check(self) -> None:
        for split in ("train", "heldout"):
            self.streams.source(split)
        check_head_classes(self.settings.head_classes, self.fae.config.data.classes)

    def _vectors(self, split: str, blocks: tuple[int, ...], also: Callable[[View], None]) -> Vectors:
        limit, available = self.settings.limit, len(self.streams.source(split))
        layers = max(blocks) if max(blocks) > 1 else 0
        views = self.streams.views(split, "probe", limit=limit, layers=layers)
        count = min(limit or available, available)
        return gather(views, count=count, latent_pooling=self.settings.latent_pooling, also=also)

    def run(self) -> Outcome:
        encoder, settings = self.fae.encoder, self.settings
        blocks = settings.blocks if encoder.keep is not None else (1,)
        train = self._vectors("train", blocks, lambda view: None)
        token = None if train.tokens is None else train.tokens[:, -encoder.width :].mean(axis=0)
        head = OwnHead(self.fae, head_classes=settings.head_classes, mean_token=token) if encoder.head else None
        agreement = Agreement()
        available = len(self.streams.source("heldout"))
        examples = Examples(FIGURE, min(settings.limit or available, available))

        def look(view: View) -> None:
            x, reconstructed = view.kept(view.features), view.kept(view.reconstructed)
            agreement.add(x, reconstructed)
            examples.add(view.images, x, reconstructed)
            if head:
                head.see(view)

        heldout = self._vectors("heldout", blocks, look)
        seed = self.fae.config.evaluation.seed
        result = evaluate_probe(train, heldout, agreement, settings, blocks=blocks, seed=seed)
        result["encoder"] = {"name": encoder.name, "weights": encoder.weights_hash}
        if head:
            result["own_head"] = head.as_result()
        images, x, reconstructed = examples.arrays()
        figure = feature_maps(images, x, reconstructed, self.fae.tokenizer.grid)
        return Outcome(result, {"features": (figure, CAPTION)})
