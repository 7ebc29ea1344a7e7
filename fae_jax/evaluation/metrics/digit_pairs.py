"""Whether images of sentences about digits (`fae_jax.data.sources.digit_captions`) show what their sentence says.

The judge is the support vector machine of `recognised`, trained on scikit-learn's real digits, 8×8, and on nothing of
ours. It reads each digit at the place where the sentence puts it:

    accuracy   share of images in which every digit is read as the sentence has it, in its order
    shuffled   the same against the sentence of the next image of that layout: chance, if the text is what does it

Its word counts where it reads real held-out digits (`judge`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8
from sklearn.svm import SVC

from fae_jax.data.sources.digit_captions import HALF, PLACES, by_sentence
from fae_jax.data.sources.digits import DigitsSource
from fae_jax.evaluation.metrics import Batch
from fae_jax.evaluation.metrics.recognised import GAMMA, MINIMUM_ACCURACY, PENALTY, low_resolution

NOBODY = -1  # in the place of a second digit where there is one alone


@cache
def judge() -> tuple[SVC, float, int]:
    """The machine, its accuracy on digits that were held out of its training, and how many these are."""
    seen, unseen = (DigitsSource(split=split, holdout=0.2, seed=0) for split in ("train", "heldout"))
    inputs = [low_resolution(np.repeat(part.images[..., None], 3, axis=-1)) for part in (seen, unseen)]
    machine = SVC(kernel="rbf", gamma=GAMMA, C=PENALTY).fit(inputs[0], seen.labels)
    return machine, float(np.mean(machine.predict(inputs[1]) == unseen.labels)), len(unseen)


def read_digits(images: UInt8[np.ndarray, "k 32 32 3"], layout: str) -> Int[np.ndarray, "k 2"]:
    """What the judge reads at the places of a layout."""
    read = np.full((len(images), 2), NOBODY)
    for i, (y, x) in enumerate(PLACES[layout]):
        read[:, i] = judge()[0].predict(low_resolution(images[:, y : y + HALF, x : x + HALF]))
    return read


class DigitPairs:
    """See the module. Of each image it keeps what was read and what was asked for."""

    compares = "nothing"
    higher = ("accuracy", "accuracy_per_layout")

    def __init__(self, sentences: Sequence[str]):
        self.sentences = sentences
        self._rows: list[np.ndarray] = []  # layout, two digits asked for, two read

    @classmethod
    def build(cls, section: None, classes: Sequence[str]) -> DigitPairs:
        return cls(classes)

    def update(self, batch: Batch) -> None:
        """Raises ValueError: what was asked for is no sentence about digits."""
        known, layouts = by_sentence(), list(PLACES)
        asked = [self.sentences[label] for label in batch.labels]
        for sentence in asked:
            if sentence not in known:
                raise ValueError(
                    f"digit_pairs reads sentences of the source digit_captions, and {sentence[:60]!r} is none"
                )
        rows = np.full((len(asked), 5), NOBODY)
        for place, (layout, digits) in enumerate(known[sentence] for sentence in asked):
            rows[place, 0], rows[place, 1 : 1 + len(digits)] = layouts.index(layout), digits
        for number, layout in enumerate(layouts):
            of_it = rows[:, 0] == number
            if of_it.any():
                rows[of_it, 3:] = read_digits(batch.images[of_it], layout)
        self._rows.append(rows)

    def merge(self, other: DigitPairs) -> None:
        self._rows += other._rows

    def state(self) -> dict[str, np.ndarray]:
        return {"rows": np.concatenate([np.zeros((0, 5), int), *self._rows])}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        self._rows = [state["rows"]]

    def result(self, real: Mapping[str, Any]) -> dict[str, Any]:
        rows = self.state()["rows"]
        if not len(rows):
            raise ValueError("there are no images for the judge to look at")
        right = (rows[:, 1:3] == rows[:, 3:]).all(axis=1)
        shuffled, layouts = np.zeros(len(rows), bool), {}
        for number, layout in enumerate(PLACES):
            of_it = np.flatnonzero(rows[:, 0] == number)
            if len(of_it):
                layouts[layout] = float(right[of_it].mean())
                shuffled[of_it] = (np.roll(rows[of_it, 1:3], 1, axis=0) == rows[of_it, 3:]).all(axis=1)
        _, accuracy, examined = judge()
        return {
            "accuracy": float(right.mean()),
            "accuracy_per_layout": layouts,
            "shuffled": float(shuffled.mean()),
            "sentences": len({tuple(row) for row in rows[:, :3].tolist()}),
            "judge": {
                "kind": f"scikit-learn SVC, RBF kernel, gamma {GAMMA}, C {PENALTY:g}, 8×8 inputs of a digit",
                "heldout": examined,
                "heldout_accuracy": accuracy,
                "minimum_accuracy": MINIMUM_ACCURACY,
                "trusted": accuracy >= MINIMUM_ACCURACY,
            },
        }
