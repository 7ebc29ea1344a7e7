"""Merged statistics against NumPy over everything at once, and against the samples they describe."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from fae_jax.autoencoder.posterior import Posterior
from fae_jax.data.stores.latent_loader import sample_latents
from fae_jax.data.stores.statistics import LatentStatistics


def posteriors(count: int, offset: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    spread = np.geomspace(1e-3, 30, 6)
    mean = (offset + rng.standard_normal((count, 4, 6)) * spread + np.arange(6)).astype(ml_dtypes.bfloat16)
    return mean, (rng.standard_normal((count, 4, 6)) - 3).astype(ml_dtypes.bfloat16)


def merged(mean: np.ndarray, log_variance: np.ndarray, cuts: list[int]) -> LatentStatistics:
    total = LatentStatistics.empty(6)
    for piece in zip(np.split(mean, cuts), np.split(log_variance, cuts), strict=True):
        total = total.merge(LatentStatistics.of_parts(*piece))
    return total


@pytest.mark.parametrize("cuts", [[], [1], [100, 101, 350], list(range(7, 400, 7))])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_merging_is_exact_in_any_pieces(cuts: list[int], offset: float) -> None:
    mean, log_variance = posteriors(400, offset)
    total = merged(mean, log_variance, cuts)
    values = mean.astype(np.float64).reshape(-1, 6)
    noise = np.exp(log_variance.astype(np.float64)).reshape(-1, 6)
    assert total.count == 1600
    np.testing.assert_allclose(total.mean, values.mean(0), rtol=1e-10)
    np.testing.assert_allclose(total.variance, values.var(0) + noise.mean(0), rtol=1e-10)


def test_json_keeps_every_bit() -> None:
    import json

    total = LatentStatistics.of_parts(*posteriors(50))
    again = LatentStatistics.from_json(json.loads(json.dumps(total.to_json())))
    for name in ("count", "mean", "deviation", "noise"):
        np.testing.assert_array_equal(getattr(again, name), getattr(total, name))


def test_standardised_samples_have_unit_variance_and_return() -> None:
    mean, log_variance = posteriors(4000)
    total = LatentStatistics.of_parts(mean, log_variance)
    keys = jax.random.split(jax.random.key(0), 4000)
    z = sample_latents({"mean": mean, "log_variance": log_variance}, keys, total)
    assert z.dtype == jnp.float32
    flat = np.asarray(z, np.float64).reshape(-1, 6)
    np.testing.assert_allclose(flat.mean(0), 0, atol=0.03)
    np.testing.assert_allclose(flat.var(0), 1, atol=0.05)
    drawn = Posterior(jnp.asarray(mean, jnp.float32), jnp.asarray(log_variance, jnp.float32)).sample(keys)
    np.testing.assert_allclose(total.unstandardise(z), drawn, rtol=1e-5, atol=1e-4)
