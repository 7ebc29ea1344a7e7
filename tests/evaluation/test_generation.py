"""The generation result on real digits: real held-out images as samples, then spoilt in known ways."""

import dataclasses
import json

import numpy as np
import pytest

from fae_jax.evaluation.frechet import Moments, frechet_distance
from fae_jax.evaluation.generation import LabelledImages, Sampling, evaluate_samples, write_generation
from fae_jax.evaluation.judge import train_judge

DIGIT_NAMES = [str(digit) for digit in range(10)]
SAMPLING = Sampling(
    sampler="euler",
    steps=50,
    function_evaluations=86,
    guidance=1.5,
    label_policy="random",
    seed=3,
    more={"ema": 0.999},
)


@pytest.fixture(scope="module")
def judge(digits):
    train, heldout = digits
    return train_judge(train.images, train.labels, heldout.images, heldout.labels)


def test_perfect_samples_score_as_the_heldout_images_they_are(digits, real, judge):
    result = evaluate_samples(digits.heldout, SAMPLING, real=real, judge=judge, class_names=DIGIT_NAMES)
    assert result["accuracy"] == judge.heldout_accuracy
    assert result["frechet"]["samples_to_heldout"] == pytest.approx(0.0, abs=1e-8)
    expected = frechet_distance(Moments.of(digits.train.features), Moments.of(digits.heldout.features))
    assert result["frechet"]["train_to_heldout"] == expected > 0
    assert result["nearest"]["median_samples"] == result["nearest"]["median_heldout"]
    assert result["count"] == result["frechet"]["heldout"] == 359 and result["frechet"]["train"] == 1438
    assert sum(result["count_per_class"].values()) == 359
    assert result["sampling"] == {
        "sampler": "euler",
        "steps": 50,
        "function_evaluations": 86,
        "guidance": 1.5,
        "label_policy": "random",
        "seed": 3,
        "ema": 0.999,
    }


def test_accuracy_is_of_the_class_asked_for(digits, real, judge):
    """Samples asked to be a 4 that show something else are wrong, and only the 4 suffers."""
    heldout = digits.heldout
    images = heldout.images.copy()
    fours, zeros = np.flatnonzero(heldout.labels == 4), np.flatnonzero(heldout.labels == 0)
    images[fours] = images[zeros[0]]
    spoilt = dataclasses.replace(heldout, images=images)
    result = evaluate_samples(spoilt, SAMPLING, real=real, judge=judge, class_names=DIGIT_NAMES)
    assert result["accuracy_per_class"]["4"] == 0.0
    assert result["lowest_class"] == {"name": "4", "accuracy": 0.0}
    assert result["accuracy_per_class"]["0"] >= 0.9
    by_hand = np.mean(judge.recognise(images) == heldout.labels)
    assert result["accuracy"] == pytest.approx(by_hand)


def test_a_class_nobody_asked_for_has_no_accuracy(digits, real, judge):
    some = digits.heldout.labels < 3
    samples = LabelledImages(
        images=digits.heldout.images[some], labels=digits.heldout.labels[some], features=digits.heldout.features[some]
    )
    result = evaluate_samples(samples, SAMPLING, real=real, judge=judge, class_names=DIGIT_NAMES)
    assert result["accuracy_per_class"]["7"] is None and result["count_per_class"]["7"] == 0
    assert result["lowest_class"]["name"] in {"0", "1", "2"}


def test_the_label_policy_is_checked(digits, real, judge):
    balanced = dataclasses.replace(SAMPLING, label_policy="balanced")
    order = np.concatenate([np.flatnonzero(digits.heldout.labels == digit)[:20] for digit in range(10)])

    def take(which):
        part = digits.heldout
        return LabelledImages(images=part.images[which], labels=part.labels[which], features=part.features[which])

    assert evaluate_samples(take(order), balanced, real=real, judge=judge, class_names=DIGIT_NAMES)["count"] == 200
    with pytest.raises(ValueError, match="18 to 20 per class"):
        evaluate_samples(take(order[2:]), balanced, real=real, judge=judge, class_names=DIGIT_NAMES)
    with pytest.raises(ValueError, match="'uniform' is unknown; use balanced or random"):
        dataclasses.replace(SAMPLING, label_policy="uniform")
    with pytest.raises(ValueError, match="only|class names"):
        evaluate_samples(take(order), balanced, real=real, judge=judge, class_names=DIGIT_NAMES[:9])


def test_parts_that_do_not_belong_together_are_refused(digits, unchecked_shapes):
    with pytest.raises(ValueError, match="359, 358, 359"):
        dataclasses.replace(digits.heldout, labels=digits.heldout.labels[:-1])


def test_result_file_is_plain_json_and_replaced_whole(tmp_path, digits, real, judge):
    result = evaluate_samples(digits.heldout, SAMPLING, real=real, judge=judge, class_names=DIGIT_NAMES)
    path = write_generation(tmp_path, {"guided": result}, judge=judge, class_names=DIGIT_NAMES)
    assert path == tmp_path / "evaluation" / "generation.json"
    read = json.loads(path.read_text())
    assert read["schema"] == 1 and read["class_names"] == DIGIT_NAMES
    assert read["judge"]["heldout_accuracy"] == judge.heldout_accuracy
    assert read["sets"]["guided"] == json.loads(json.dumps(result))
    before = path.read_bytes()
    broken = {**result, "accuracy": float("nan")}
    with pytest.raises(ValueError, match="generation.json holds a number that is not finite"):
        write_generation(tmp_path, {"guided": broken}, judge=judge, class_names=DIGIT_NAMES)
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["generation.json"]
