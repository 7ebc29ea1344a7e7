"""The probe on separable synthetic vectors, with reconstructions spoilt in known ways."""

import dataclasses

import numpy as np
import pytest

from fae_jax.evaluation.agreement import Agreement
from fae_jax.evaluation.tasks.probe import ProbeSection, evaluate_probe, inputs
from fae_jax.evaluation.vectors import Vectors

CLASSES, WIDTH = 4, 8
LOGISTIC = ProbeSection(linear="logistic", neighbours=(5,))
SGD = ProbeSection(learning_rates=(1e-6, 0.5), steps=40, batch=64, neighbours=(3, 5))


def split(seed: int, count: int, spoil: float = 0.0) -> Vectors:
    """Vectors whose first four channels carry the class; so do two of z."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count)
    x = rng.normal(scale=0.2, size=(count, WIDTH))
    x[:, :CLASSES] += 2.0 * np.eye(CLASSES)[labels]
    angle = labels * 2 * np.pi / CLASSES
    z = rng.normal(scale=0.1, size=(count, 2)) + np.stack([np.cos(angle), np.sin(angle)], -1)
    return Vectors(labels=labels, x=x, z=z, reconstructed=x + rng.normal(scale=spoil, size=x.shape))


def agreement() -> Agreement:
    seen = Agreement()
    seen.add(np.eye(3)[None], np.eye(3)[None] * 0.5)
    return seen


def probed(train: Vectors, heldout: Vectors, settings: ProbeSection = LOGISTIC, **options) -> dict:
    return evaluate_probe(train, heldout, agreement(), settings, **options)


@pytest.mark.parametrize("settings", [LOGISTIC, SGD])
def test_separable_features_are_recognised_and_a_faithful_reconstruction_loses_nothing(settings: ProbeSection):
    result = probed(split(0, 200), split(1, 100, spoil=0.01), settings)
    for kind in ("linear", "nearest_neighbour"):
        assert [result[kind][name] for name in ("x", "reconstructed", "reconstructed_own", "z")] == [1.0] * 4
    assert result["linear"]["loss_in_points"] == 0.0 and result["nearest_neighbour"]["k"] == settings.neighbours[0]
    assert result["train"] == 200 and result["heldout"] == 100 and result["cosine"] == pytest.approx(1)
    assert result["protocol"]["linear"].startswith("SGD" if settings is SGD else "logistic")
    assert result["linear"].get("learning_rates", {}).get("x") == (0.5 if settings is SGD else None)


@pytest.mark.parametrize("settings", [LOGISTIC, SGD])
def test_a_reconstruction_of_another_class_is_seen_by_what_learnt_x_and_not_by_what_learnt_it(settings: ProbeSection):
    def turned(part: Vectors, which: np.ndarray) -> Vectors:
        wrong = part.x.copy()
        wrong[which, :CLASSES] = np.roll(part.x[:, :CLASSES], 1, axis=-1)[which]
        return dataclasses.replace(part, reconstructed=wrong)

    train, heldout = split(3, 200), split(2, 100)
    spoilt = heldout.labels % 2 == 0
    result = probed(train, turned(heldout, spoilt), settings)
    for kind in ("linear", "nearest_neighbour"):
        assert result[kind]["reconstructed"] == pytest.approx(1.0 - spoilt.mean())
        assert result[kind]["x"] == 1.0
    assert result["linear"]["loss_in_points"] == pytest.approx(100.0 * spoilt.mean())
    everywhere = probed(turned(train, np.arange(200) >= 0), turned(heldout, np.arange(100) >= 0), settings)
    assert everywhere["linear"]["reconstructed"] == 0 and everywhere["linear"]["reconstructed_own"] == 1
    assert everywhere["nearest_neighbour"]["reconstructed_own"] == 1


def test_scale_of_single_channels_does_not_matter_to_logistic_regression():
    scales = 10.0 ** np.arange(-4, 4)
    scaled = [
        dataclasses.replace(part, x=part.x * scales, reconstructed=part.reconstructed * scales)
        for part in (split(6, 200), split(7, 100))
    ]
    assert probed(*scaled)["linear"]["x"] == 1.0


def test_an_unfinished_classifier_is_said_to_be_unfinished(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("fae_jax.evaluation.tasks.probe.ITERATIONS", 1)
    assert probed(split(8, 50), split(9, 20))["converged"] is False


def test_class_tokens_are_probed_without_and_with_the_mean_patch():
    train, heldout = (
        dataclasses.replace(part, tokens=np.c_[part.x[:, ::-1], 0 * part.x])  # the last block's token says nothing
        for part in (split(4, 200), split(5, 100))
    )
    shapes = {name: sum(part.shape[1] for part in parts) for name, parts in inputs(train, (1, 2)).items()}
    expected = {"class 1": 8, "class 1 + mean patch": 16, "class 2": 16, "class 2 + mean patch": 24}
    assert shapes == expected
    accuracies = probed(train, heldout, SGD, blocks=(1, 2))["linear"]["inputs"]
    assert accuracies["class 1"] < 0.6 and accuracies["class 2"] == accuracies["class 1 + mean patch"] == 1.0


def test_the_encoders_own_pooling_has_classifiers_of_its_own():
    train, heldout = (
        dataclasses.replace(part, pooled=part.x[:, :6], pooled_reconstructed=part.x[:, 1:7])
        for part in (split(4, 200), split(5, 100))
    )
    own = probed(train, heldout)["own_pooling"]
    assert own["width"] == 6 and own["linear"]["x"] == own["nearest_neighbour"]["x"] == 1.0
    assert own["linear"]["reconstructed"] < 0.5 and own["linear"]["loss_in_points"] > 50


def test_one_class_is_refused():
    part = split(13, 20)
    with pytest.raises(ValueError, match="at least 2 classes"):
        probed(dataclasses.replace(part, labels=np.zeros(20, np.int64)), part)
