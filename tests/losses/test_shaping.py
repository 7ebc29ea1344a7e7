"""The regularisers against loops over their equations, and where each is zero."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fae_jax.losses.shaping import SemanticHead, continuity_loss, semantics_loss, structure_loss


def random(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def cosine(a, b):
    return float(np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b)))


def test_structure_compares_all_pairs_within_a_image():
    z, x = random(2, 5, 3), random(2, 5, 7, seed=1)
    pairs = [
        (cosine(z[b, i], z[b, j]) - cosine(x[b, i], x[b, j])) ** 2 for b in (0, 1) for i in range(5) for j in range(5)
    ]
    assert float(structure_loss(z, x)) == pytest.approx(np.mean(pairs), rel=1e-5)
    turned = jnp.linalg.qr(random(7, 7))[0]
    assert float(structure_loss(3 * x @ turned, x)) == pytest.approx(0, abs=1e-9)


def test_continuity_follows_one_growing_perturbation():
    weight, z, noise = random(3, 4), random(2, 5, 3), random(2, 5, 3, seed=2)
    steps = []
    decode = lambda latents: jnp.tanh(latents @ weight)
    points = [np.tanh((z + s * noise) @ weight) for s in (0, 0.2, 0.4, 0.6)]
    steps = [np.mean((after - before) ** 2) for before, after in zip(points, points[1:], strict=False)]
    got = continuity_loss(decode, z, noise, reach=0.6, levels=3, variance=2.0)
    assert float(got) == pytest.approx(sum(steps) / 3 / 2, rel=1e-4)
    assert float(continuity_loss(decode, z, 0 * noise, reach=0.6, levels=3, variance=1.0)) == 0


def test_continuity_moves_what_comes_after_towards_what_was_before():
    """The gradient of a scale on the decoder comes from the perturbed pass alone."""
    z, noise = jnp.ones((1, 1, 2)), jnp.ones((1, 1, 2))
    loss = lambda scale: continuity_loss(lambda x: scale * x, z, noise, reach=1.0, levels=1, variance=1.0)
    # (2 s − sg(s))²: derivative 2 (2 s − s) 2 = 4 at s = 1; without the stop it would be 2.
    assert float(jax.grad(loss)(1.0)) == pytest.approx(4.0)


def test_semantics_are_pooled_and_by_patch():
    read, x = random(2, 5, 7), random(2, 5, 7, seed=1)
    pooled = np.mean([1 - cosine(read[b].mean(0), x[b].mean(0)) for b in (0, 1)])
    patch = np.mean([1 - cosine(read[b, i], x[b, i]) for b in (0, 1) for i in range(5)])
    assert float(semantics_loss(read, x)) == pytest.approx(pooled + patch, rel=1e-5)
    assert float(semantics_loss(2 * x, x)) == pytest.approx(0, abs=1e-5)


def test_a_latent_that_holds_the_features_can_be_read():
    x = random(4, 6, 3)
    head = SemanticHead(3)
    params = {"linear": {"kernel": jnp.linalg.inv(random(3, 3))}}
    read = head.apply({"params": params}, x @ random(3, 3))
    assert float(semantics_loss(read, x)) == pytest.approx(0, abs=1e-3)


def test_dead_tokens_have_gradients_that_are_numbers():
    z, x = jnp.zeros((1, 2, 3)), jnp.asarray(random(1, 2, 3))
    for loss in (structure_loss, semantics_loss):
        assert np.isfinite(jax.grad(lambda z, loss=loss: loss(z, x))(z)).all()
