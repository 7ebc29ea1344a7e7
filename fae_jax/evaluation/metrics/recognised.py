"""Whether samples are taken for the class asked for, by a judge that is not ours.

A support vector machine learns the classes from real training images alone. It sees images through an input of its
own choosing, never the encoder's features, so a generator cannot please it by pleasing the encoder. The settings are
scikit-learn's own for its handwritten digits: 8×8 grey values between 0 and 16, a Gaussian kernel exp(−γ‖a − b‖²)
with γ = 0.001, C = 1. Before its word counts it has to recognise real images that it never saw.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from sklearn.svm import SVC

from fae_jax.evaluation.metrics import Batch

GAMMA, PENALTY = 0.001, 1.0
MINIMUM_ACCURACY = 0.98  # on real held-out images, from which the judge is trusted


def area_matrix(size_in: int, size_out: int) -> Float[np.ndarray, "size_out size_in"]:
    """Weights of the area average that takes `size_in` pixels in a row to `size_out`; every row sums to one."""
    edges_in, edges_out = np.arange(size_in + 1), np.linspace(0.0, size_in, size_out + 1)
    left = np.maximum(edges_in[None, :-1], edges_out[:-1, None])
    right = np.minimum(edges_in[None, 1:], edges_out[1:, None])
    return np.clip(right - left, 0.0, None) * (size_out / size_in)


def low_resolution(images: UInt8[np.ndarray, "n y x 3"]) -> Float[np.ndarray, "n 64"]:
    """Images as grey area averages on an 8×8 grid, from 0 (black) to 16 (white), flattened.

    What the judge sees: for digits drawn larger it gives back the 8×8 grey values of scikit-learn's data set.
    """
    rows, columns = area_matrix(images.shape[1], 8), area_matrix(images.shape[2], 8)
    grey = (images.astype(np.float64) * (16.0 / 255.0)).mean(-1, keepdims=True)
    small = np.einsum("ay,nyxc,bx->nabc", rows, grey, columns, optimize=True)
    return small.reshape(len(images), -1)


class Recognised:
    """Shares recognised as the class asked for. Of each image it keeps what the judge sees, 512 bytes.

    Its scores: `accuracy`; `accuracy_per_class`, null for a class that nothing was asked of; `count_per_class`;
    `lowest_class` {name, accuracy}; `judge` {kind, trained_on, heldout, heldout_accuracy, minimum_accuracy, trusted}.
    """

    compares = "splits"
    higher = ("accuracy", "accuracy_per_class", "heldout_accuracy")

    def __init__(self, classes: Sequence[str]):
        self.classes = classes
        self._inputs: list[np.ndarray] = []
        self._labels: list[np.ndarray] = []

    @classmethod
    def build(cls, section: None, classes: Sequence[str]) -> Recognised:
        return cls(classes)

    def update(self, batch: Batch) -> None:
        """Raises ValueError: a label has no class name."""
        if batch.labels.min() < 0 or batch.labels.max() >= len(self.classes):
            raise ValueError(
                f"labels run from {batch.labels.min()} to {batch.labels.max()}, but there are {len(self.classes)} "
                "class names"
            )
        self._inputs.append(low_resolution(batch.images))
        self._labels.append(batch.labels)
        self._forget()

    def merge(self, other: Recognised) -> None:
        self._inputs += other._inputs
        self._labels += other._labels
        self._forget()

    def state(self) -> dict[str, np.ndarray]:
        return {"inputs": np.concatenate(self._inputs), "labels": self.labels} if self._inputs else {}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        self._inputs, self._labels = ([state[name]] if state else [] for name in ("inputs", "labels"))
        self._forget()

    def _forget(self) -> None:
        """The judge, who learnt from fewer images."""
        self.__dict__.pop("classifier", None)

    @property
    def labels(self) -> np.ndarray:
        return np.concatenate(self._labels or [np.zeros(0, int)])

    @functools.cached_property
    def classifier(self) -> SVC:
        """The judge, trained on what was taken in.

        Raises:
          ValueError: there are fewer than two classes.
        """
        classes = len(np.unique(self.labels))
        if classes < 2:
            raise ValueError(f"a judge needs images of at least 2 classes to train on, got {classes}")
        return SVC(kernel="rbf", gamma=GAMMA, C=PENALTY).fit(np.concatenate(self._inputs), self.labels)

    def recognised_by(self, judge: SVC) -> Bool[np.ndarray, " n"]:
        """Which of the images taken in the judge gives their label.

        Raises:
          ValueError: there are none.
        """
        if not self._inputs:
            raise ValueError("there are no images for the judge to look at; hold some out of training")
        return judge.predict(np.concatenate(self._inputs)) == self.labels

    def result(self, real: Mapping[str, Recognised]) -> dict[str, Any]:
        judge = real["train"].classifier
        examined, right, labels = real["heldout"].recognised_by(judge), self.recognised_by(judge), self.labels
        counts = np.bincount(labels, minlength=len(self.classes))
        known = {
            name: float(right[labels == label].mean()) for label, name in enumerate(self.classes) if counts[label]
        }
        lowest = min(known, key=lambda name: known[name])
        return {
            "accuracy": float(right.mean()),
            "accuracy_per_class": {name: known.get(name) for name in self.classes},
            "count_per_class": dict(zip(self.classes, counts.tolist(), strict=True)),
            "lowest_class": {"name": lowest, "accuracy": known[lowest]},
            "judge": {
                "kind": f"scikit-learn SVC, RBF kernel, gamma {GAMMA}, C {PENALTY:g}, {judge.n_features_in_} inputs",
                "trained_on": len(real["train"].labels),
                "heldout": len(examined),
                "heldout_accuracy": float(examined.mean()),
                "minimum_accuracy": MINIMUM_ACCURACY,
                "trusted": bool(examined.mean() >= MINIMUM_ACCURACY),
            },
        }
