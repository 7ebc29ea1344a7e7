"""Cosine and explained variance of x and x̂, summed over batches."""

import numpy as np
import pytest
from sklearn.metrics import r2_score

from fae_jax.evaluation.agreement import Agreement


def of(*batches):
    agreement = Agreement()
    for x, y in batches:
        agreement.add(x, y)
    return agreement


def test_cosine_is_the_mean_over_tokens_not_over_images():
    x = np.array([[[1.0, 0.0], [0.0, 100.0]]])
    y = np.array([[[1.0, 1.0], [0.0, -3.0]]])
    assert of((x, y)).cosine == pytest.approx((np.sqrt(0.5) - 1.0) / 2)
    assert of((x, 7.0 * x)).cosine == pytest.approx(1.0)
    assert of((x, 0.0 * x)).cosine == 0.0


def test_explained_variance_is_the_variance_weighted_determination_however_it_is_cut():
    rng = np.random.default_rng(10)
    x = rng.normal(size=(30, 4, 5)) * [1, 2, 3, 4, 5] + 700
    y = x + rng.normal(size=x.shape)
    expected = r2_score(x.reshape(-1, 5), y.reshape(-1, 5), multioutput="variance_weighted")
    whole, cut = of((x, y)), of((x[:3], y[:3]), (x[3:4], y[3:4]), (x[4:], y[4:]))
    assert whole.explained_variance == pytest.approx(expected)
    assert cut.explained_variance == pytest.approx(expected) and cut.cosine == pytest.approx(whole.cosine)
    assert of((x, np.broadcast_to(x.mean((0, 1)), x.shape))).explained_variance == pytest.approx(0.0)


def test_other_shapes_are_refused(unchecked_shapes):
    with pytest.raises(ValueError, match="its reconstruction"):
        Agreement().add(np.zeros((2, 3, 4)), np.zeros((2, 2, 4)))
