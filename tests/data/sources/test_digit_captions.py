"""Digits with sentences: what is said is what is shown, whole compositions are held out, and the judge reads them."""

import numpy as np
import pytest

from fae_jax.data.sources.digit_captions import HALF, PLACES, by_sentence, compositions, held_out
from fae_jax.data.sources.kinds import open_source
from fae_jax.evaluation.metrics import Batch
from fae_jax.evaluation.metrics.digit_pairs import DigitPairs

OPEN = {"path": None, "holdout": 0.2, "seed": 3}


@pytest.fixture(scope="module")
def heldout():
    return open_source("digit_captions", split="heldout", **OPEN)


def test_every_sentence_says_one_thing():
    assert len(compositions()) == 210
    assert sum(len(composition.sentences) for composition in compositions()) == len(by_sentence()) == 400
    assert by_sentence()["a three to the left of an eight"] == ("beside", (3, 8))
    assert by_sentence()["an eight above a three"] == by_sentence()["an eight on top of a three"] == ("above", (8, 3))
    assert by_sentence()["two sixes side by side"] == ("beside", (6, 6))


def test_whole_compositions_are_held_out_and_every_digit_is_trained_in_every_place():
    held = held_out(0.2, 3)
    assert held.sum() == 44 and not held[:10].any() and not held_out(0.0, 3).any()
    words = {"held out": set(), "trained": set()}
    for composition, gone in zip(compositions(), held, strict=True):
        words["held out" if gone else "trained"].update(" ".join(composition.sentences).replace(",", "").split())
    assert words["held out"] <= words["trained"]
    for layout in ("beside", "above"):
        kept = [
            digits for (kind, digits), gone in zip(compositions(), held, strict=True) if kind == layout and not gone
        ]
        assert sum(a == b for a, b in kept) == 8
        for place in range(2):
            assert np.bincount([digits[place] for digits in kept if len(set(digits)) == 2]).tolist() == [7] * 10
    train = open_source("digit_captions", split="train", **OPEN)
    assert set(train.labels.tolist()) == set(np.flatnonzero(~held).tolist())
    again = open_source("digit_captions", split="train", **OPEN)
    assert train.fingerprint == again.fingerprint and train.captioned


def test_the_judge_reads_what_the_sentences_say_and_nothing_else(heldout):
    elements = [heldout[place] for place in range(len(heldout))]
    images = np.stack([element["image"] for element in elements])
    for image, element in zip(images[:40], elements, strict=False):
        outside = image.copy()
        for y, x in PLACES[compositions()[element["label"]].layout]:
            outside[y : y + HALF, x : x + HALF] = 0
        assert image.any() and not outside.any()
    sentences = [element["captions"][place % len(element["captions"])] for place, element in enumerate(elements)]

    def score(asked: list[str]) -> dict:
        metric = DigitPairs.build(None, asked)
        for part in np.array_split(np.arange(len(images)), 2):
            metric.update(Batch(images=images[part], labels=part, look=lambda name: {}))
        kept = DigitPairs.build(None, asked)
        kept.restore(metric.state())
        assert kept.result({}) == metric.result({})
        return metric.result({})

    right = score(sentences)
    assert right["accuracy"] > 0.9 and right["judge"]["trusted"] and right["sentences"] == 44
    assert set(right["accuracy_per_layout"]) == {"beside", "above"} and right["shuffled"] < 0.1
    swapped = {by_sentence()[sentence]: sentence for sentence in by_sentence()}
    turned = [swapped[layout, digits[::-1]] for layout, digits in (by_sentence()[sentence] for sentence in sentences)]
    alike = np.mean([len(set(by_sentence()[sentence].digits)) == 1 for sentence in sentences])
    assert score(turned)["accuracy"] < alike + 0.02  # the order counts
    with pytest.raises(ValueError, match="reads sentences of the source digit_captions, and 'a cat' is none"):
        DigitPairs.build(None, ["a cat"]).update(
            Batch(images=images[:1], labels=np.zeros(1, int), look=lambda name: {})
        )
