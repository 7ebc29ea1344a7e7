"""A judge that is not ours: a support vector machine that learnt the classes from real training images alone.

It sees images through an input of its own choosing, never the encoder's features, so a generator cannot please it
by pleasing the encoder. The settings are scikit-learn's own for its handwritten digits: 8×8 grey values between
0 and 16, a Gaussian kernel exp(−γ‖a − b‖²) with γ = 0.001, C = 1. Before its word counts it has to recognise real
images that it never saw.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int, UInt8
from sklearn.svm import SVC

JudgeInput = Callable[[np.ndarray], np.ndarray]
MINIMUM_ACCURACY = 0.98


def area_matrix(size_in: int, size_out: int) -> Float[np.ndarray, "size_out size_in"]:
    """Weights of the area average that takes `size_in` pixels in a row to `size_out`; every row sums to one."""
    edges_in, edges_out = np.arange(size_in + 1), np.linspace(0.0, size_in, size_out + 1)
    left = np.maximum(edges_in[None, :-1], edges_out[:-1, None])
    right = np.minimum(edges_in[None, 1:], edges_out[1:, None])
    return np.clip(right - left, 0.0, None) * (size_out / size_in)


def low_resolution(
    images: UInt8[np.ndarray, "n y x 3"], *, size: int = 8, colour: bool = False
) -> Float[np.ndarray, "n k"]:
    """Images as area averages on a `size`×`size` grid, from 0 (black) to 16 (white), flattened.

    The default `judge_input`: for digits drawn larger it gives back the 8×8 grey values of scikit-learn's data set.
    k is size², or 3·size² with `colour`.
    """
    rows, columns = area_matrix(images.shape[1], size), area_matrix(images.shape[2], size)
    values = images.astype(np.float64) * (16.0 / 255.0)
    if not colour:
        values = values.mean(-1, keepdims=True)
    small = np.einsum("ay,nyxc,bx->nabc", rows, values, columns, optimize=True)
    return small.reshape(len(images), -1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judge:
    """A trained judge and what it reaches on real images that it never saw.

    Attributes:
      classifier: the fitted scikit-learn classifier.
      judge_input: images (n, y, x, 3) uint8 → what the classifier sees (n, k).
      trained_on: number of real training images.
      heldout: number of real held-out images.
      heldout_accuracy: fraction of those it recognises.
      minimum_accuracy: below this its word does not count.
      description: kind and settings, for the result file.
    """

    classifier: SVC
    judge_input: JudgeInput
    trained_on: int
    heldout: int
    heldout_accuracy: float
    minimum_accuracy: float
    description: str

    @property
    def trusted(self) -> bool:
        """Whether it recognises enough real held-out images for its word to count."""
        return self.heldout_accuracy >= self.minimum_accuracy

    def recognise(self, images: UInt8[np.ndarray, "n y x 3"]) -> Int[np.ndarray, " n"]:
        """The class the judge sees in each image."""
        return self.classifier.predict(np.asarray(self.judge_input(images), np.float64))

    def as_result(self) -> dict[str, object]:
        """What the result file says of the judge."""
        return {
            "kind": self.description,
            "trained_on": self.trained_on,
            "heldout": self.heldout,
            "heldout_accuracy": self.heldout_accuracy,
            "minimum_accuracy": self.minimum_accuracy,
            "trusted": self.trusted,
        }


def train_judge(
    train_images: UInt8[np.ndarray, "n y x 3"],
    train_labels: Int[np.ndarray, " n"],
    heldout_images: UInt8[np.ndarray, "m y x 3"],
    heldout_labels: Int[np.ndarray, " m"],
    *,
    judge_input: JudgeInput = low_resolution,
    gamma: float | str = 0.001,
    penalty: float = 1.0,
    minimum_accuracy: float = MINIMUM_ACCURACY,
) -> Judge:
    """Trains the judge on real training images and examines it on real held-out ones.

    Args:
      judge_input: images → what the judge sees; values from 0 to 16 suit the default `gamma`.
      gamma: γ of the kernel, or "scale" for one over k times the input's variance, whatever the input's range.
      penalty: C, the price of a training image on the wrong side.
      minimum_accuracy: held-out accuracy from which the judge is trusted.

    Raises:
      ValueError: fewer than two classes to learn, or no held-out image to be examined on.
    """
    classes = np.unique(train_labels)
    if len(classes) < 2:
        raise ValueError(f"a judge needs images of at least 2 classes to train on, got {len(classes)}")
    if not len(heldout_images):
        raise ValueError("a judge needs held-out images to be examined on, got none; hold some out of training")
    inputs = np.asarray(judge_input(train_images), np.float64)
    classifier = SVC(kernel="rbf", gamma=gamma, C=penalty).fit(inputs, train_labels)
    seen = classifier.predict(np.asarray(judge_input(heldout_images), np.float64))
    return Judge(
        classifier=classifier,
        judge_input=judge_input,
        trained_on=len(train_images),
        heldout=len(heldout_images),
        heldout_accuracy=float(np.mean(seen == heldout_labels)),
        minimum_accuracy=minimum_accuracy,
        description=f"scikit-learn SVC, RBF kernel, gamma {gamma}, C {penalty:g}, {inputs.shape[1]} inputs",
    )
