"""Equation (1) against scipy's general matrix root, closed forms, and the merge against NumPy's covariance."""

import functools

import numpy as np
import pytest
import scipy.linalg

from fae_jax.extractors.moments import BLOCK, Moments, Running, factor, frechet_distance


def features(seed: int, count: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, width)) @ rng.normal(size=(width, width)) + rng.normal(size=width)


def reference(first: np.ndarray, second: np.ndarray) -> float:
    """The usual statement: covariances by NumPy, the root of their product by scipy."""
    c1, c2 = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    root = scipy.linalg.sqrtm(c1 @ c2)
    return float(np.sum((first.mean(0) - second.mean(0)) ** 2) + np.trace(c1 + c2 - 2 * np.real(root)))


@pytest.mark.parametrize("width", [1, 5, 40])
def test_distance_is_that_of_the_general_matrix_root(width):
    first, second = features(1, 200, width), features(2, 150, width)
    first, second = first.reshape(200, width), second.reshape(150, width)
    if width == 1:
        expected = (first.mean() - second.mean()) ** 2 + (first.std(ddof=1) - second.std(ddof=1)) ** 2
    else:
        expected = reference(first, second)
    assert frechet_distance(Moments.of(first), Moments.of(second)) == pytest.approx(expected, rel=1e-9)


def test_fewer_samples_than_dimensions_agrees_with_the_factored_form():
    # Σ = A Aᵀ with A (d, n): the non-zero eigenvalues of Σ₁Σ₂ are the squared singular values of A₁ᵀA₂.
    first, second = features(3, 20, 100), features(4, 30, 100)
    a1, a2 = ((x - x.mean(0)).T / np.sqrt(len(x) - 1) for x in (first, second))
    shared = np.linalg.svd(a1.T @ a2, compute_uv=False).sum()
    expected = np.sum((first.mean(0) - second.mean(0)) ** 2) + np.sum(a1**2) + np.sum(a2**2) - 2 * shared
    assert frechet_distance(Moments.of(first), Moments.of(second)) == pytest.approx(expected, rel=1e-8)


def test_distance_to_itself_is_zero_even_when_singular():
    for count in (10, 400):
        moments = Moments.of(features(5, count, 64))
        assert frechet_distance(moments, moments) < 1e-9 * np.trace(moments.covariance)


def test_distance_of_commuting_covariances_has_its_closed_form():
    corners = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    scale = np.sqrt(3 / 4)  # the sample variance of ±1 over four points is 4/3
    first = Moments.of(corners * scale * [1.0, 2.0])
    second = Moments.of(corners * scale * [3.0, 5.0] + [1.0, 1.0])
    assert frechet_distance(first, second) == pytest.approx((3 - 1) ** 2 + (5 - 2) ** 2 + 2)


def test_distance_is_symmetric_and_ignores_rotations():
    first, second = features(6, 80, 12), features(7, 90, 12)
    rotation, _ = np.linalg.qr(np.random.default_rng(8).normal(size=(12, 12)))
    forth = frechet_distance(Moments.of(first), Moments.of(second))
    assert frechet_distance(Moments.of(second), Moments.of(first)) == pytest.approx(forth)
    assert frechet_distance(Moments.of(first @ rotation), Moments.of(second @ rotation)) == pytest.approx(forth)


def test_merged_moments_are_those_of_the_whole():
    # A mean far from zero: the textbook E[x²] − E[x]² would lose ten digits here.
    everything = features(9, 101, 7) + 1e6
    first, *rest = (Moments.of(part) for part in np.split(everything, [1, 40, 77]))
    merged = functools.reduce(Moments.merge, rest, first)
    assert merged.count == 101
    np.testing.assert_allclose(merged.mean, everything.mean(0), rtol=1e-12)
    np.testing.assert_allclose(merged.covariance, np.cov(everything, rowvar=False), rtol=1e-7)


def test_moments_are_float64_whatever_comes_in():
    moments = Moments.of(features(10, 30, 4).astype(np.float16))
    assert moments.mean.dtype == moments.covariance.dtype == np.float64


def test_a_covariance_is_its_factor_squared():
    moments = Moments.of(features(11, 5, 9))
    made, covariance = factor(moments), moments.covariance
    assert made.shape == (9, 4)  # five samples have four degrees of freedom
    np.testing.assert_allclose(made @ made.T, covariance, atol=1e-12 * np.trace(covariance))


def test_unusable_features_are_refused():
    with pytest.raises(ValueError, match="1 of 3 feature vectors are not finite"):
        Moments.of(np.array([[0.0], [np.nan], [1.0]]))
    with pytest.raises(ValueError, match="n ≥ 1"):
        Moments.of(np.zeros((0, 3)))
    with pytest.raises(ValueError, match="3 and 4 wide"):
        Moments.of(np.zeros((2, 3))).merge(Moments.of(np.zeros((2, 4))))
    with pytest.raises(ValueError, match="3 and 4 wide"):
        frechet_distance(Moments.of(np.zeros((2, 3))), Moments.of(np.zeros((2, 4))))
    with pytest.raises(ValueError, match="of an unknown number of images cannot be merged"):
        Moments.of(np.zeros((2, 3))).merge(Moments(count=0, mean=np.zeros(3), deviations=np.eye(3)))


def test_moments_of_a_stream_do_not_depend_on_its_batches():
    everything = features(12, BLOCK * 2 + 77, 6).astype(np.float32)

    def running(size: int, start: int = 0, stop: int | None = None) -> Running:
        made, rows = Running(), everything[start:stop]
        for first in range(0, len(rows), size):
            made.add(rows[first : first + size])
        return made

    whole = Moments.of(everything)
    for size in (1, 7, 64, 5000):
        moments = running(size).moments
        np.testing.assert_array_equal(moments.deviations, running(64).moments.deviations)
        np.testing.assert_allclose(moments.deviations, whole.deviations, atol=1e-13 * np.trace(whole.deviations))
    parts = running(7, 0, 900)
    parts.merge(running(64, 900, 901))
    parts.merge(running(64, 901, 2000))
    parts.add(everything[2000:])
    assert parts.moments.count == whole.count
    np.testing.assert_allclose(parts.moments.deviations, whole.deviations, atol=1e-13 * np.trace(whole.deviations))
    empty = Running()
    empty.restore(Running().state())
    empty.add(np.zeros((0, 6)))  # of a batch in which none is among
    assert empty.moments is None
    with pytest.raises(ValueError, match="6 and 5 wide"):
        running(7, 0, 7).add(np.zeros((2, 5)))
