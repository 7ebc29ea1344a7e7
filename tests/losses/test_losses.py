"""Losses against NumPy, term by term."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from fae_jax.losses import pixel, vae

RANDOM = np.random.default_rng(0)


def on_device(loss):
    """A loss that takes NumPy arrays and gives a float."""
    return lambda *arguments: float(loss(*(jnp.asarray(x) if isinstance(x, np.ndarray) else x for x in arguments)))


psnr = on_device(pixel.psnr)


def pixel_error(decoded, images, l1: float, l2: float) -> float:
    terms = pixel.pixel_terms((("l1", l1), ("l2", l2)))
    return float(pixel.pixel_loss(terms, jnp.asarray(decoded), jnp.asarray(images), jnp.zeros(()))[0])


cosine, feature_error, kl_divergence = map(on_device, (vae.cosine, vae.feature_error, vae.kl_divergence))


def normal(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape).astype(np.float32)


def test_divergence_is_the_integral_it_stands_for():
    mean, log_variance = 0.7, -0.9
    q, p = stats.norm(mean, np.exp(log_variance / 2)), stats.norm(0, 1)
    wanted, _ = integrate.quad(lambda z: q.pdf(z) * (q.logpdf(z) - p.logpdf(z)), -12, 12)
    found = kl_divergence(np.full((2, 3, 4), mean, np.float32), np.full((2, 3, 4), log_variance, np.float32))
    assert found == pytest.approx(wanted, rel=1e-5)


def test_divergence_is_a_mean_over_elements_and_zero_for_the_prior():
    mean, log_variance = normal(2, 3, 4), normal(2, 3, 4)
    m, v = mean.astype(np.float64), np.exp(log_variance.astype(np.float64))
    assert kl_divergence(mean, log_variance) == pytest.approx((m**2 + v - 1 - np.log(v)).mean() / 2, rel=1e-5)
    assert kl_divergence(np.zeros((1, 2, 3)), np.zeros((1, 2, 3))) == 0


def test_feature_error_is_the_share_of_variance_missed():
    features = 3 * normal(4, 16, 8)
    nothing = np.broadcast_to(features.mean((0, 1)), features.shape)
    variance = float(features.astype(np.float64).var((0, 1)).mean())
    assert feature_error(nothing, features, variance) == pytest.approx(1, rel=1e-5)
    assert feature_error(features, features, variance) == 0


def test_cosine_is_per_token_and_blind_to_length():
    a, b = normal(2, 3, 5), normal(2, 3, 5)
    wanted = np.mean(
        [[x @ y / np.sqrt(x @ x * (y @ y)) for x, y in zip(*rows, strict=True)] for rows in zip(a, b, strict=True)]
    )
    assert cosine(a, b) == pytest.approx(wanted, rel=1e-4)
    assert cosine(a, a * np.array([[1], [5], [0.1]], np.float32)) == pytest.approx(1, abs=1e-5)
    assert cosine(a, np.zeros_like(a)) == 0
    some = a * np.array([[0], [1], [1]], np.float32)
    slope = jax.jit(jax.grad(vae.cosine))(some, b)
    assert not np.any(slope[:, 0]) and np.all(np.isfinite(slope)) and np.all(np.any(slope[:, 1:], -1))


@pytest.mark.parametrize(("l1", "l2"), [(1.0, 0.0), (0.0, 1.0), (0.5, 2.0)])
def test_pixel_error_weighs_both_terms(l1: float, l2: float):
    decoded, images = normal(2, 4, 4, 3), normal(2, 4, 4, 3)
    difference = decoded.astype(np.float64) - images
    wanted = l1 * np.abs(difference).mean() + l2 * (difference**2).mean()
    assert pixel_error(decoded, images, l1, l2) == pytest.approx(wanted, rel=1e-5)


def test_psnr_is_that_of_bytes_averaged_in_decibels():
    images = RANDOM.integers(0, 256, (3, 8, 8, 3)).astype(np.float64)
    noisy = np.clip(images + RANDOM.normal(size=images.shape) * np.array([2, 10, 40])[:, None, None, None], 0, 255)
    wanted = np.mean([10 * np.log10(255**2 / ((a - b) ** 2).mean()) for a, b in zip(images, noisy, strict=True)])
    to_pixels = lambda x: (x / 127.5 - 1).astype(np.float32)
    assert psnr(to_pixels(noisy), to_pixels(images)) == pytest.approx(wanted, abs=1e-3)


def test_psnr_clips_what_a_decoder_overshoots_and_is_finite_for_equal_images():
    white = np.ones((1, 2, 2, 3), np.float32)
    assert psnr(3 * white, white) == psnr(white, white) == pytest.approx(10 * np.log10(4e12), rel=1e-5)


def test_the_sum_is_the_papers_loss_of_an_image():
    features, decoded, mean, log_variance = normal(4, 5, 6), normal(4, 5, 6), normal(4, 5, 2), normal(4, 5, 2)
    terms = {"error": vae.feature_error(*map(jnp.asarray, (decoded, features)), 9.0)}
    terms["kl"] = vae.kl_divergence(*map(jnp.asarray, (mean, log_variance)))
    reduced = functools.partial(vae.reduced, **terms, sizes=(5, 6, 2), variance=9.0)
    kl = (mean**2 + np.exp(log_variance) - 1 - log_variance).sum() / 2
    expected = (((decoded - features) ** 2).sum() + 0.1 * kl) / 4
    assert float(reduced(beta=0.1, reduction="sum")) == pytest.approx(expected, rel=1e-5)
    as_mean = float(reduced(beta=0.1 * 2 / (6 * 9), reduction="mean"))
    assert as_mean * 5 * 6 * 9 == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match="reduction 'max' is unknown; choose mean or sum"):
        reduced(beta=0.1, reduction="max")


def test_a_channel_whose_mean_hardly_moves_is_inactive():
    mean = normal(8, 5, 3) * np.float32([1.0, 0.05, 0.5]) + np.float32([0, 3, 0])
    assert float(vae.inactive_channels(jnp.asarray(mean))) == 1


def test_a_term_counts_from_its_start_step_on_and_is_named_where_there_are_several():
    decoded, images = jnp.asarray(normal(2, 4, 4, 3)), jnp.asarray(normal(2, 4, 4, 3))
    terms = pixel.pixel_terms((("l2", 1.0), ("l1", 0.5, 10)))
    early, values, _ = pixel.pixel_loss(terms, decoded, images, jnp.asarray(9))
    late, *_ = pixel.pixel_loss(terms, decoded, images, jnp.asarray(10))
    assert float(early) == pytest.approx(float(values["l2"]))
    assert float(late) == pytest.approx(float(values["l2"] + 0.5 * values["l1"]))
    with pytest.raises(ValueError, match="'l3' is none of the pixel losses; choose one of l1, l2, "):
        pixel.pixel_terms((("l3", 1.0),))
