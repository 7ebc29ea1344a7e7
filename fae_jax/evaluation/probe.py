"""Do reconstructed features still mean what the encoder's features meant?

A linear classifier is trained on the encoder's own features x of the training pictures, then shown held-out x and,
unchanged, the reconstruction x̂. What it loses on the way is the meaning that the latent z did not carry:

    loss in points = 100 (accuracy(x) − accuracy(x̂))                                          (1)

Beside it: the same classifier trained anew on z, nearest-neighbour votes (cosine) in x, x̂ and z with the training
pictures' own x, x and z as voters, and two plain measures over all tokens i:

    cosine = mean_i  x_i·x̂_i / (‖x_i‖ ‖x̂_i‖)                                                 (2)
    explained variance = 1 − Σ_i ‖x_i − x̂_i‖² / Σ_i ‖x_i − x̄‖²                                (3)

`evaluation/probe.json` (`write_probe`):

    schema               1
    train, heldout       numbers of pictures
    linear               {x, reconstructed, z}: held-out accuracies; loss_in_points: equation (1)
    nearest_neighbour    {x, reconstructed, z}: held-out accuracies; k
    cosine, explained_variance   equations (2) and (3), held-out
    pooling              {x, z}: "mean" over patches or "flat"
    converged            whether both classifiers' training came to its end
"""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from fae_jax.evaluation.results import write_result

POOLINGS = ("mean", "flat")


def pool(tokens: Float[np.ndarray, "b n d"], pooling: str) -> Float[np.ndarray, "b k"]:
    """Tokens of each picture as one float64 vector: their mean, or all of them one after the other.

    Raises:
      ValueError: the pooling has no such name.
    """
    if pooling not in POOLINGS:
        raise ValueError(f"pooling {pooling!r} is unknown; use {' or '.join(POOLINGS)}")
    values = np.asarray(tokens, np.float64)
    return values.mean(1) if pooling == "mean" else values.reshape(len(values), -1)


def token_cosine(features: Float[np.ndarray, "b n d"], reconstructed: Float[np.ndarray, "b n d"]) -> float:
    """Equation (2); a token of length zero counts as 0."""
    first, second = np.asarray(features, np.float64), np.asarray(reconstructed, np.float64)
    lengths = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
    return float(np.mean((first * second).sum(-1) / np.where(lengths > 0, lengths, np.inf)))


def explained_variance(features: Float[np.ndarray, "b n d"], reconstructed: Float[np.ndarray, "b n d"]) -> float:
    """Equation (3), with x̄ the mean of each channel over all tokens of all pictures."""
    first = np.asarray(features, np.float64)
    residual = np.sum((first - np.asarray(reconstructed, np.float64)) ** 2)
    return float(1.0 - residual / np.sum((first - first.mean((0, 1))) ** 2))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tokens:
    """What the probe needs of one split.

    Attributes:
      features: the encoder's own, x, (b, n, d).
      latents: posterior means z, (b, n, c).
      labels: (b,).
      reconstructed: x̂ from those latents, (b, n, d); only the held-out split needs it.

    Raises:
      ValueError: the parts differ in number, or x and x̂ in shape.
    """

    features: Float[np.ndarray, "b n d"]
    latents: Float[np.ndarray, "b m c"]
    labels: Int[np.ndarray, " b"]
    reconstructed: Float[np.ndarray, "b n d"] | None = None

    def __post_init__(self) -> None:
        counts = (len(self.features), len(self.latents), len(self.labels))
        if len(set(counts)) > 1 or not counts[0]:
            raise ValueError(
                "features, latents and labels must be as many and at least one, got {}, {}, {}".format(*counts)
            )
        if self.reconstructed is not None and self.reconstructed.shape != self.features.shape:
            raise ValueError(f"x is {self.features.shape} but its reconstruction {self.reconstructed.shape}")


def _fit_linear(vectors: np.ndarray, labels: np.ndarray, penalty: float, iterations: int) -> tuple[Pipeline, bool]:
    model = make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=iterations))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(vectors, labels)
    return model, not any(issubclass(warning.category, ConvergenceWarning) for warning in caught)


def evaluate_probe(
    train: Tokens,
    heldout: Tokens,
    *,
    pooling: str = "mean",
    latent_pooling: str = "flat",
    neighbours: int = 10,
    penalty: float = 1.0,
    iterations: int = 2000,
) -> dict[str, Any]:
    """The probe's result, as plain JSON values (see the top of this file).

    Args:
      train: the split the classifiers learn from; its `reconstructed` is not used.
      heldout: the split they are examined on.
      pooling, latent_pooling: how the tokens of x, and of z, become one vector per picture.
      neighbours: voters of the nearest-neighbour rule, fewer where the training split is smaller.
      penalty, iterations: C and the iteration limit of the logistic regression, on standardised inputs.

    Raises:
      ValueError: fewer than two classes to tell apart, no x̂ in `heldout`, or an unknown pooling.
    """
    if len(np.unique(train.labels)) < 2:
        raise ValueError("a probe needs pictures of at least 2 classes to train on")
    if heldout.reconstructed is None:
        raise ValueError("a probe needs the held-out features' reconstruction; pass `reconstructed`")
    voters = min(neighbours, len(train.labels))
    x, z = pool(train.features, pooling), pool(train.latents, latent_pooling)
    linear_x, converged_x = _fit_linear(x, train.labels, penalty, iterations)
    linear_z, converged_z = _fit_linear(z, train.labels, penalty, iterations)
    votes_x = KNeighborsClassifier(voters, metric="cosine").fit(x, train.labels)
    votes_z = KNeighborsClassifier(voters, metric="cosine").fit(z, train.labels)
    shown = {
        "x": pool(heldout.features, pooling),
        "reconstructed": pool(heldout.reconstructed, pooling),
        "z": pool(heldout.latents, latent_pooling),
    }

    def accuracies(model_x: Any, model_z: Any) -> dict[str, float]:
        return {
            name: float(np.mean((model_z if name == "z" else model_x).predict(vectors) == heldout.labels))
            for name, vectors in shown.items()
        }

    linear = accuracies(linear_x, linear_z)
    return {
        "schema": 1,
        "train": len(train.labels),
        "heldout": len(heldout.labels),
        "linear": {**linear, "loss_in_points": 100.0 * (linear["x"] - linear["reconstructed"])},
        "nearest_neighbour": {**accuracies(votes_x, votes_z), "k": voters},
        "cosine": token_cosine(heldout.features, heldout.reconstructed),
        "explained_variance": explained_variance(heldout.features, heldout.reconstructed),
        "pooling": {"x": pooling, "z": latent_pooling},
        "converged": converged_x and converged_z,
    }


def write_probe(workdir: Path, result: dict[str, Any]) -> Path:
    """Writes `evaluation/probe.json` atomically; returns its path."""
    return write_result(Path(workdir) / "evaluation" / "probe.json", result)
