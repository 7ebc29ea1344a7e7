"""The space of the autoencoder: exact statistics, there and back, and kept with what they belong to."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from fae_jax.tokenizers import feature_space
from fae_jax.tokenizers.feature_space import FeatureSpace, measure

RANDOM = np.random.default_rng(0)
# Channels far from zero and of very different spread, in batches of different sizes.
BATCHES = [
    (1000 * np.arange(5) + 0.01 * 3.0 ** np.arange(5) * RANDOM.normal(size=(size, 16, 5))).astype(np.float32)
    for size in (4, 1, 7)
]


def test_statistics_are_those_of_all_tokens_in_float64():
    values = np.concatenate(BATCHES).reshape(-1, 5).astype(np.float64)
    found = measure(iter(BATCHES))
    assert found.count == 12 * 16
    np.testing.assert_allclose(found.mean, values.mean(0), rtol=1e-13)
    np.testing.assert_allclose(found.std, values.std(0), rtol=1e-10)


def test_statistics_of_all_hosts_are_those_of_all_images(monkeypatch):
    """Three hosts, one of them without an image of its own; what they say goes through text and loses nothing."""
    parts = [measure([batch]) for batch in (BATCHES[0], BATCHES[1][:0], BATCHES[2])]
    texts = [json.dumps(part.to_json()) for part in parts]
    monkeypatch.setattr(feature_space, "gather_text", lambda text: texts)
    found = feature_space.over_hosts(parts[0])
    values = np.concatenate([BATCHES[0], BATCHES[2]]).reshape(-1, 5).astype(np.float64)
    assert found.count == len(values)
    np.testing.assert_allclose(found.mean, values.mean(0), rtol=1e-13)
    np.testing.assert_allclose(found.std, values.std(0), rtol=1e-10)


def test_nothing_to_measure_is_an_error():
    with pytest.raises(ValueError, match="no images"):
        measure(iter(()))


def test_there_and_back():
    space = FeatureSpace(mean=np.float32([1, -2]), std=np.float32([0.5, 4]), standardise=True)
    x = jnp.asarray([[[1.5, 2.0], [1.0, -2.0]]])
    np.testing.assert_allclose(space.enter(x), [[[1, 1], [0, 0]]])
    np.testing.assert_allclose(space.leave(space.enter(x)), x)
    assert space.variance == 1.0


def test_raw_features_stay_and_their_errors_are_divided_by_their_variance():
    space = FeatureSpace(mean=np.float32([1, -2]), std=np.float32([0.5, 4]), standardise=False)
    x = jnp.ones((1, 3, 2))
    assert space.enter(x) is x and space.leave(x) is x
    assert space.variance == pytest.approx((0.25 + 16) / 2)


def test_root_mean_square_is_that_of_the_features_as_they_are_used():
    values = np.concatenate(BATCHES).reshape(-1, 5).astype(np.float64)
    mean, std = values.mean(0).astype(np.float32), values.std(0).astype(np.float32)
    assert FeatureSpace(mean=mean, std=std, standardise=False).rms == pytest.approx(np.sqrt((values**2).mean()))
    assert FeatureSpace(mean=mean, std=std, standardise=True).rms == 1.0
