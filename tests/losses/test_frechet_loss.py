"""The distance and its slope against SciPy's root and finite differences; moments by hand; what float32 keeps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from fae_jax.extractors.moments import Moments, factor, frechet_distance
from fae_jax.losses.frechet import MovingSamples, frechet_loss

WIDTH, BATCH = 5, 6


def drawn(seed: int, count: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, WIDTH)) @ rng.normal(size=(WIDTH, WIDTH)) + rng.normal(size=WIDTH)


def by_scipy(mean, covariance, reference: Moments) -> float:
    root = np.real(scipy.linalg.sqrtm(covariance @ reference.covariance))
    return np.sum((mean - reference.mean) ** 2) + np.trace(covariance + reference.covariance - 2 * root)


def kept_by_hand(batches: list[np.ndarray], length: int, decay: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance that count after the last of `batches`."""
    if not decay:
        last = np.concatenate(batches)[-length:]
        return last.mean(0), np.cov(last, rowvar=False)
    first, second = np.zeros(WIDTH), np.zeros((WIDTH, WIDTH))
    for number, batch in enumerate(batches, 1):
        weight = max(1 - decay, 1 / number)
        first = (1 - weight) * first + weight * batch.mean(0)
        second = (1 - weight) * second + weight * batch.T @ batch / len(batch)
    return first, second - np.outer(first, first)


@pytest.mark.parametrize("decay", [0.0, 0.6])
def test_moments_value_and_slope_are_those_of_the_definition(decay: float):
    *before, batch = batches = [drawn(seed, BATCH) for seed in range(5)]
    reference, samples = Moments.of(drawn(9, 50)), MovingSamples(length=15, decay=decay)

    def loss(last, before, given):
        memory, seen = samples.start(WIDTH), []
        for each in (*before, last):
            mean, root, memory = samples.add(memory, each)
            seen.append((mean, root.T @ root, samples.is_full(memory)))
        return frechet_loss(mean, root, *given), (seen, memory["count"])

    with jax.enable_x64(True):
        given = jax.tree.map(jnp.asarray, (batch, before, (reference.mean, factor(reference))))
        (value, (seen, count)), slope = jax.jit(jax.value_and_grad(loss, has_aux=True))(*given)
    assert count == 30 and [bool(full) for *_, full in seen] == [False, False, True, True, True]
    for number, (mean, covariance, _) in enumerate(seen, 1):
        for ours, theirs in zip((mean, covariance), kept_by_hand(batches[:number], 15, decay), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)

    def by_hand(last: np.ndarray) -> float:
        return by_scipy(*kept_by_hand([*before, last], 15, decay), reference)

    assert float(value) == pytest.approx(by_hand(batch), rel=1e-9)
    step, expected = 1e-5, np.zeros_like(batch)
    for place in np.ndindex(batch.shape):
        moved = np.zeros_like(batch)
        moved[place] = step
        expected[place] = (by_hand(batch + moved) - by_hand(batch - moved)) / (2 * step)
    assert np.abs(np.asarray(slope) - expected).max() <= 1e-6 * np.abs(expected).max()


def graded(count: int, width: int, decades: float, seed: int = 0) -> np.ndarray:
    """Features whose standard deviations fall by so many powers of ten, in random directions."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.normal(size=(width, width)))[0]
    return rng.normal(size=(count, width)) * np.logspace(0, -decades, width) @ turn


def whole(features, given):
    samples = MovingSamples(length=len(features))
    mean, root, _ = samples.add(samples.start(features.shape[1]), features)
    return frechet_loss(mean, root, *given)


def in_float32(reference: Moments) -> list[jax.Array]:
    return [jnp.asarray(part, jnp.float32) for part in (reference.mean, factor(reference))]


def test_float32_keeps_directions_of_little_variance():
    """Singular values fall by 5 powers of ten here, and eigenvalues of Σ_r^½ Σ Σ_r^½ by 10, beyond float32."""
    first, reference = graded(300, 24, 2.5), Moments.of(graded(400, 24, 2.5) / 2)
    value, slope = jax.jit(jax.value_and_grad(whole))(jnp.asarray(first, jnp.float32), in_float32(reference))
    assert float(value) == pytest.approx(frechet_distance(Moments.of(first), reference), rel=1e-5)
    # To carry Σ to Σ/4 halves each direction, the last ones as well as the first.
    centred = first - first.mean(0)
    directions = np.linalg.svd(centred, full_matrices=False)[2].T
    own = centred @ directions
    ratios = 299 / 2 * np.sum((np.asarray(slope, np.float64) @ directions) * own, 0) / np.sum(own**2, 0)
    assert np.all((ratios > 0.35) & (ratios < 0.65)), ratios


def test_samples_without_a_whole_covariance_have_a_finite_slope():
    flat, reference = np.zeros((8, WIDTH), np.float32), Moments.of(drawn(2, 60))
    flat[:, :2] = drawn(1, 8)[:, :2]
    run, given = jax.jit(jax.value_and_grad(whole)), in_float32(reference)
    for features in (flat, 0 * flat):
        value, slope = run(features, given)
        exact = frechet_distance(Moments.of(features), reference)
        assert float(value) == pytest.approx(exact, rel=1e-4) and np.isfinite(slope).all()
