"""The losses of stages, called with numbers: what each term weighs, what is sampled, what is dropped."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fae_jax.autoencoder.posterior import Posterior
from fae_jax.conditions.label import ClassLabel
from fae_jax.data.stores.statistics import LatentStatistics
from fae_jax.losses.pixel import pixel_terms
from fae_jax.stages.encoder import Pretraining, encoder_loss
from fae_jax.stages.generator import generator_loss
from fae_jax.stages.pixels import noisy_features, pixels_loss, returned_features
from fae_jax.tokenizers.fae import FAETokenizer
from fae_jax.tokenizers.feature_space import FeatureSpace

KEYS = jax.random.split(jax.random.key(0), 64)
ZERO = jnp.zeros((), jnp.int32)


class Recorder:
    """A generator that keeps what it is given."""

    condition = ClassLabel(classes=10, dropout=0.25)

    def init(self, key): ...

    def sample(self, params, keys, condition, settings): ...

    def evaluations(self, settings): ...

    def loss(self, params, z, condition, keys, step):
        self.z, self.told = z, condition
        return jnp.mean(z), {}


def test_the_generator_sees_standardised_samples_a_share_without_their_class():
    shape = (64, 4, 3)
    mean = np.random.default_rng(0).normal(5, 2, shape).astype(np.float32)
    log_variance = np.full(shape, np.log(9.0), np.float32)
    generator, statistics = Recorder(), LatentStatistics.of_parts(mean, log_variance)
    batch = {
        "mean": jnp.asarray(mean),
        "log_variance": jnp.asarray(log_variance),
        "label": jnp.arange(64, dtype=jnp.int32) % 10,
    }
    generator_loss(generator, statistics, {}, {}, batch, KEYS, ZERO)
    z, told = np.asarray(generator.z), np.asarray(generator.told)
    assert z.mean() == pytest.approx(0, abs=0.1) and z.std() == pytest.approx(1, abs=0.06)  # 2/√13 without the noise
    gone = told == 10
    assert 6 <= gone.sum() <= 27 and (told[~gone] == (np.arange(64) % 10)[~gone]).all()


def test_the_encoder_pays_for_classes_and_for_pixels():
    class Networks(Pretraining):
        tokens, config = 4, types.SimpleNamespace(patch=2)

        def __init__(self): ...

        def forward(self, params, images, blank):
            return jnp.zeros((64, 10)), jnp.ones((64, 4, 12))

    networks = Networks()
    section = types.SimpleNamespace(shift=0, mask=0.5, label_smoothing=0.0, reconstruction_weight=3.0)
    batch = {"image": jnp.zeros((64, 4, 4, 3), jnp.uint8), "label": jnp.zeros(64, jnp.int32)}
    loss, metrics = encoder_loss(networks, section, {}, {}, batch, KEYS, ZERO)
    assert float(metrics["pixel_loss"]) == pytest.approx(4)  # 1 for black, which is −1
    assert float(loss) == pytest.approx(np.log(10) + 3 * 4, rel=1e-5)


class Tokenizer(FAETokenizer):
    """x is stored, z = μ + σ ε with σ = 2, and both decoders hand on what they get."""

    def __init__(self): ...

    space = FeatureSpace(mean=np.zeros(3, np.float32), std=np.ones(3, np.float32), standardise=True)
    feature_decoder = types.SimpleNamespace(apply=lambda variables, z: z)
    pixel_decoder = types.SimpleNamespace(apply=lambda variables, x: x.reshape(-1, 2, 2, 3))

    def raw_features(self, frozen, batch):
        return batch["features"]

    def compress(self, params, features):
        return Posterior(features, jnp.full_like(features, np.log(4.0)))


FEATURES = jnp.zeros((64, 4, 3))


def test_finetune_decodes_samples_of_the_posterior():
    returned = returned_features(Tokenizer(), "sample", {"feature_decoder": {}}, {"features": FEATURES}, KEYS)
    assert float(returned.std()) == pytest.approx(2, rel=0.1)
    assert float(jnp.abs(returned[0] - returned[1]).max()) > 0.1
    mean = returned_features(Tokenizer(), "mean", {"feature_decoder": {}}, {"features": FEATURES}, KEYS)
    assert float(jnp.abs(mean).max()) == 0


def test_noise_is_as_strong_for_every_image_or_drawn_for_each():
    fixed, drawn = (
        noisy_features(Tokenizer(), 0.5, each, {}, {"features": jnp.zeros((64, 100, 3))}, KEYS).std((1, 2))
        for each in (False, True)
    )
    assert np.abs(fixed - 0.5).max() < 0.1
    assert drawn.min() < 0.05 and drawn.max() > 0.4 and float(drawn.mean()) == pytest.approx(0.25, abs=0.05)


def test_pixel_terms_are_weighed_by_name_against_the_image():
    def ones(frozen, batch, keys):
        return jnp.ones((64, 4, 3))

    batch = {"image": jnp.full((64, 2, 2, 3), 0, jnp.uint8), "features": FEATURES}  # black is −1: 2 from 1
    terms = pixel_terms((("l1", 0.5), ("l2", 3.0)))
    loss, report = pixels_loss(Tokenizer(), terms, ones, {}, {}, batch, KEYS, ZERO)
    assert float(loss) == pytest.approx(0.5 * 2 + 3 * 4)
    assert (
        float(report.metrics["l1"]) == 2
        and float(report.metrics["l2"]) == 4
        and float(report.metrics["psnr"]) == pytest.approx(0)
    )
