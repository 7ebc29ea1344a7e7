"""scikit-learn's digits, one or two of them in a 32×32 image, with sentences that say which and where.

A composition is a layout and its digits: one in the middle; two beside each other, a left of b; two above each other.

    alone     10     "a seven"
    beside    100    "a three beside an eight", "a three to the left of an eight"
    above     100    "a three above an eight", "a three on top of an eight"

and two alike "two nines side by side", "two nines, one above the other". Held out are whole compositions, so that a
generator meets their sentences for the first time, though every word of them in others. In either layout these are

    k = max(1, round(10 · holdout)) of the ten pairs of two alike,                                    (1)
    for k of the nine differences d from 1 to 9, all ten pairs (a, a + d mod 10),                     (2)

so that every digit is trained on in every place beside at least 9 − k others. Held-out images are of held-out digits.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np

from fae_jax.data.sources.digits import SIZE, DigitsSource
from fae_jax.data.sources.listing import listing_hash

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
HALF, QUARTER = SIZE // 2, SIZE // 4
PLACES = {  # the first row and column of each digit, HALF × HALF
    "alone": ((QUARTER, QUARTER),),
    "beside": ((QUARTER, 0), (QUARTER, HALF)),
    "above": ((0, QUARTER), (HALF, QUARTER)),
}
EACH = 24  # training images of a composition; of a held-out one a quarter as many


class Composition(NamedTuple):
    """A layout, a key of `PLACES`, and its digits in order: from the left, or from the top."""

    layout: str
    digits: tuple[int, ...]

    @property
    def sentences(self) -> tuple[str, ...]:
        """What can be said of it, the plainest first."""
        one, other = (_with_article(digit) for digit in (self.digits[0], self.digits[-1]))
        if self.layout == "alone":
            return (one,)
        if self.digits[0] == self.digits[1]:
            both = f"two {_plural(self.digits[0])}"
            beside = (f"{both} side by side", f"{both}, one beside the other")
            return beside if self.layout == "beside" else (f"{both}, one above the other",)
        if self.layout == "beside":
            return (f"{one} beside {other}", f"{one} to the left of {other}")
        return (f"{one} above {other}", f"{one} on top of {other}")


def _with_article(digit: int) -> str:
    return f"{'an' if NAMES[digit] == 'eight' else 'a'} {NAMES[digit]}"


def _plural(digit: int) -> str:
    return NAMES[digit] + ("es" if NAMES[digit] == "six" else "s")


@cache
def compositions() -> tuple[Composition, ...]:
    """All 210, in the order of their labels."""
    pairs = [(a, b) for a in range(10) for b in range(10)]
    alone = [Composition("alone", (digit,)) for digit in range(10)]
    return (*alone, *(Composition(layout, pair) for layout in ("beside", "above") for pair in pairs))


@cache
def by_sentence() -> dict[str, Composition]:
    """What each sentence says."""
    return {sentence: composition for composition in compositions() for sentence in composition.sentences}


def held_out(holdout: float, seed: int) -> np.ndarray:
    """Which compositions are held out, equations (1) and (2): (210,) bool; none where `holdout` is 0."""
    count = max(1, round(10 * holdout)) if holdout else 0
    random = np.random.default_rng(seed)
    alike, differences = (
        {layout: set(random.permutation(range(first, 10))[:count].tolist()) for layout in ("beside", "above")}
        for first in (0, 1)
    )

    def chosen(layout: str, digits: tuple[int, ...]) -> bool:
        if layout not in alike:
            return False
        difference = (digits[1] - digits[0]) % 10
        return difference in differences[layout] if difference else digits[0] in alike[layout]

    return np.array([chosen(*composition) for composition in compositions()])


class DigitCaptionsSource:
    """The compositions as a captioned `Source`; labels number all 210, those of the other split too."""

    captioned = True

    def __init__(self, *, split: str, holdout: float, seed: int):
        digits = DigitsSource(split=split, holdout=holdout, seed=seed)
        own = held_out(holdout, seed) == (split == "heldout")
        each = EACH if split == "train" else EACH // 4
        self.classes = tuple(composition.sentences[0] for composition in compositions())
        self.labels = np.tile(np.flatnonzero(own), each).astype(np.int32)
        random = np.random.default_rng([seed, len(split)])
        places = [np.flatnonzero(digits.labels == digit) for digit in range(10)]
        small = digits.images.reshape(-1, HALF, 2, HALF, 2).mean((2, 4)).round().astype(np.uint8)
        self.images = np.zeros((len(self.labels), SIZE, SIZE), np.uint8)
        for image, label in zip(self.images, self.labels, strict=True):
            layout, written = compositions()[label]
            for (y, x), digit in zip(PLACES[layout], written, strict=True):
                image[y : y + HALF, x : x + HALF] = small[random.choice(places[digit])]
        self.fingerprint = listing_hash(f"digit captions {digits.fingerprint}", self.labels, self.images.reshape(-1))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, position: int) -> dict[str, Any]:
        image = np.repeat(self.images[position][..., None], 3, axis=-1)
        label = self.labels[position]
        texts = {"captions": compositions()[label].sentences}
        return {"image": image, "label": label, "index": np.int64(position), **texts}
