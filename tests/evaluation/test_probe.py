"""The probe on separable synthetic features, with reconstructions spoilt in known ways."""

import dataclasses
import json

import numpy as np
import pytest
from sklearn.metrics import r2_score

from fae_jax.evaluation.probe import Tokens, evaluate_probe, explained_variance, pool, token_cosine, write_probe

CLASSES, TOKENS, WIDTH = 4, 6, 8


def split(seed: int, count: int, spoil: float = 0.0) -> Tokens:
    """Features whose first four channels carry the class; z carries it in its second token only."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count)
    features = rng.normal(scale=0.3, size=(count, TOKENS, WIDTH))
    features[..., :CLASSES] += 2.0 * np.eye(CLASSES)[labels][:, None]
    latents = rng.normal(scale=0.1, size=(count, TOKENS, 2))
    angle = labels * 2 * np.pi / CLASSES
    latents[:, 1] += np.stack([np.cos(angle), np.sin(angle)], -1)
    latents[:, 2] -= np.stack([np.cos(angle), np.sin(angle)], -1)  # so that the mean over tokens says nothing
    reconstructed = features + rng.normal(scale=spoil, size=features.shape)
    return Tokens(features=features, latents=latents, labels=labels, reconstructed=reconstructed)


def test_separable_features_are_recognised_and_a_faithful_reconstruction_loses_nothing():
    result = evaluate_probe(split(0, 200), split(1, 100, spoil=0.01), neighbours=5)
    assert result["linear"]["x"] == result["linear"]["reconstructed"] == result["linear"]["z"] == 1.0
    assert result["linear"]["loss_in_points"] == 0.0
    assert result["nearest_neighbour"] == {"x": 1.0, "reconstructed": 1.0, "z": 1.0, "k": 5}
    assert result["cosine"] > 0.999 and result["explained_variance"] > 0.999
    assert result["converged"] and result["train"] == 200 and result["heldout"] == 100


def test_a_reconstruction_of_another_class_is_seen_by_the_probe_trained_on_x():
    heldout = split(2, 100)
    turned = np.roll(heldout.features[..., :CLASSES], 1, axis=-1)
    wrong = heldout.features.copy()
    spoilt = heldout.labels % 2 == 0
    wrong[spoilt, :, :CLASSES] = turned[spoilt]
    result = evaluate_probe(split(3, 200), dataclasses.replace(heldout, reconstructed=wrong))
    assert result["linear"]["reconstructed"] == pytest.approx(1.0 - spoilt.mean())
    assert result["linear"]["loss_in_points"] == pytest.approx(100.0 * spoilt.mean())
    assert result["nearest_neighbour"]["reconstructed"] == pytest.approx(1.0 - spoilt.mean())
    assert result["linear"]["x"] == 1.0


def test_latents_have_their_own_probe_and_pooling():
    train, heldout = split(4, 200), split(5, 100)
    averaged = evaluate_probe(train, heldout, latent_pooling="mean")
    assert averaged["linear"]["z"] < 0.6  # the class is in single tokens, and cancels in the mean
    assert evaluate_probe(train, heldout, latent_pooling="flat")["linear"]["z"] == 1.0
    assert averaged["pooling"] == {"x": "mean", "z": "mean"}


def test_scale_of_single_channels_does_not_matter_to_the_linear_probe():
    scales = 10.0 ** np.arange(-4, 4)
    train, heldout = split(6, 200), split(7, 100)
    scaled = [
        dataclasses.replace(part, features=part.features * scales, reconstructed=part.reconstructed * scales)
        for part in (train, heldout)
    ]
    assert evaluate_probe(*scaled)["linear"]["x"] == 1.0


def test_an_unfinished_classifier_is_said_to_be_unfinished():
    assert evaluate_probe(split(8, 50), split(9, 20), iterations=1)["converged"] is False


def test_cosine_is_the_mean_over_tokens_not_over_pictures():
    x = np.array([[[1.0, 0.0], [0.0, 100.0]]])
    y = np.array([[[1.0, 1.0], [0.0, -3.0]]])
    assert token_cosine(x, y) == pytest.approx((np.sqrt(0.5) - 1.0) / 2)
    assert token_cosine(x, 7.0 * x) == pytest.approx(1.0)
    assert token_cosine(x, 0.0 * x) == 0.0


def test_explained_variance_is_the_variance_weighted_determination():
    rng = np.random.default_rng(10)
    x = rng.normal(size=(30, 4, 5)) * [1, 2, 3, 4, 5] + 7
    y = x + rng.normal(size=x.shape)
    expected = r2_score(x.reshape(-1, 5), y.reshape(-1, 5), multioutput="variance_weighted")
    assert explained_variance(x, y) == pytest.approx(expected)
    assert explained_variance(x, np.broadcast_to(x.mean((0, 1)), x.shape)) == pytest.approx(0.0)


def test_pooling():
    tokens = np.arange(12.0).reshape(2, 3, 2)
    np.testing.assert_array_equal(pool(tokens, "mean"), [[2, 3], [8, 9]])
    np.testing.assert_array_equal(pool(tokens, "flat"), tokens.reshape(2, 6))
    with pytest.raises(ValueError, match="'max' is unknown; use mean or flat"):
        pool(tokens, "max")


def test_result_file(tmp_path):
    result = evaluate_probe(split(11, 60), split(12, 30, spoil=0.2))
    assert json.loads(write_probe(tmp_path, result).read_text()) == result
    assert (tmp_path / "evaluation" / "probe.json").exists()


def test_what_cannot_be_probed_is_refused(unchecked_shapes):
    part = split(13, 20)
    with pytest.raises(ValueError, match="20, 20, 19"):
        dataclasses.replace(part, labels=part.labels[:-1])
    with pytest.raises(ValueError, match="its reconstruction"):
        dataclasses.replace(part, reconstructed=part.features[:, :1])
    with pytest.raises(ValueError, match="at least 2 classes"):
        evaluate_probe(dataclasses.replace(part, labels=np.zeros(20, np.int64)), part)
    with pytest.raises(ValueError, match="pass `reconstructed`"):
        evaluate_probe(part, dataclasses.replace(part, reconstructed=None))
