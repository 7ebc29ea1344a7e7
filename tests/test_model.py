"""A trained FAE as one object: it says what its stages say, and a sample depends on itself alone."""

import copy
import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from running import saved_state
from tiny import STEPS

import fae_jax
from fae_jax.data.pixels import to_pixels
from fae_jax.data.sources.digits import DigitsSource
from fae_jax.diffusion.samplers import initial_noise, sample_keys
from fae_jax.model import guidance_schedule
from fae_jax.stages.sampling import Drawing


@pytest.fixture(scope="module")
def fae(finished: Path) -> fae_jax.FAE:
    return fae_jax.load(str(finished))


@pytest.fixture(scope="module")
def images(fae: fae_jax.FAE) -> jax.Array:
    source = DigitsSource(split="heldout", holdout=0.8, seed=0)
    return to_pixels(np.stack([source[place]["image"] for place in range(3)]))


def test_shapes(fae: fae_jax.FAE, images: jax.Array):
    latents = fae.encode(images)
    assert latents.shape == (3, 4, 4, 4) and latents.dtype == jnp.float32
    assert fae.features(images).shape == fae.reconstruct_features(latents).shape == (3, 4, 4, 16)
    decoded = fae.decode(latents)
    assert decoded.shape == (3, 32, 32, 3) and float(jnp.abs(decoded).max()) <= 1
    np.testing.assert_allclose(fae.decode(np.asarray(latents)), decoded)


def test_tokens_lie_row_by_row(fae: fae_jax.FAE, images: jax.Array):
    raw = fae.encoder.features(fae.encoder.params, images)
    np.testing.assert_allclose(fae.features(images)[:, 2, 1], raw[:, 2 * 4 + 1], atol=1e-5)


def test_latents_are_the_posteriors_mean_or_with_keys_its_samples(fae: fae_jax.FAE, images: jax.Array):
    mean, log_variance = fae.posterior(images)
    np.testing.assert_allclose(fae.encode(images).reshape(3, 16, 4), mean, atol=1e-6)
    keys = jax.random.split(jax.random.key(4), 3)
    noise = np.stack([jax.random.normal(key, (16, 4)) for key in keys])
    wanted = np.asarray(mean) + np.exp(0.5 * np.asarray(log_variance)) * noise
    np.testing.assert_allclose(fae.encode(images, keys).reshape(3, 16, 4), wanted, atol=1e-4)


def test_each_part_uses_what_its_stage_trained(fae: fae_jax.FAE, finished: Path, images: jax.Array):
    """Recomputed from the checkpoints' own arrays: x̂ in the encoder's space, pixels from finetune's average."""
    networks, space = fae.tokenizer, fae.tokenizer.space

    def tree(stage: str, prefix: str) -> dict:
        nested: dict = {}
        for name, value in saved_state(finished, stage).items():
            if prefix in name:
                *way, last = [part.strip("'\"") for part in name.split(prefix)[1].strip("[]").split("][")]
                node = nested
                for part in way:
                    node = node.setdefault(part, {})
                node[last] = value
        assert nested, prefix
        return nested

    autoencoder = tree("features", "['players']['autoencoder']['params']")
    decoder = tree("finetune", "['averages']['0.9']")
    raw = fae.encoder.features(fae.encoder.params, images)
    standard = (raw - space.mean) / space.std
    mean = networks.compressor.apply({"params": autoencoder["compressor"]}, standard).mean
    np.testing.assert_allclose(fae.encode(images).reshape(3, 16, 4), mean, atol=1e-4)
    decoded = networks.feature_decoder.apply({"params": autoencoder["feature_decoder"]}, mean)
    found = fae.reconstruct_features(fae.encode(images)).reshape(3, 16, 16)
    np.testing.assert_allclose(found, decoded * space.std + space.mean, atol=1e-3)
    painted = jnp.clip(networks.pixel_decoder.apply({"params": decoder}, decoded), -1, 1)
    np.testing.assert_allclose(fae.decode(fae.encode(images)), painted, atol=1e-4)


def test_an_image_depends_on_seed_place_and_label_alone(fae: fae_jax.FAE):
    labels = [3, 1, 4, 1, 5, 9, 2]
    every = fae.generate(labels, seed=11)  # in batches of 5, as configured
    assert every.shape == (7, 32, 32, 3) and np.abs(every).max() <= 1
    np.testing.assert_allclose(fae.generate(labels[:3], seed=11), every[:3], atol=1e-5)
    np.testing.assert_allclose(fae.generate(labels[:5], seed=11), every[:5], atol=1e-5)
    other = fae.generate([3, 1, 4, 1, 5, 9, 7], seed=11)
    np.testing.assert_allclose(other[:6], every[:6], atol=1e-5)
    assert np.abs(fae.generate(labels[:3], seed=12) - every[:3]).max() > 1e-3
    assert np.abs(every[1] - every[3]).max() > 1e-3, "the same label twice must give two images"


def test_generating_is_the_sampler_written_out(fae: fae_jax.FAE):
    """Four Euler steps without guidance, label by label, with the slowest average."""
    params = fae.parts.params("generator", "0.9")
    labels = jnp.asarray([2, 7])
    z = initial_noise(sample_keys(5, jnp.arange(2)), (16, 4))
    times = np.linspace(1, 0, 5)
    shift = fae.config.sampling.shift
    times = times / (shift + (1 - shift) * times)
    for now, then in zip(times[:-1], times[1:], strict=True):
        z = z + (then - now) * fae.generator.velocity(params, z, jnp.full(2, now, jnp.float32), labels)
    statistics = fae.parts.statistics
    latents = z * statistics.std + statistics.mean
    wanted = fae.decode(jnp.asarray(latents, jnp.float32).reshape(2, 4, 4, 4))
    np.testing.assert_allclose(fae.generate([2, 7], guidance=None, seed=5), wanted, atol=1e-4)


def test_averages_are_chosen_by_decay(fae: fae_jax.FAE):
    drawn = {average: fae.generate([0, 1], seed=1, ema=average) for average in ("", "0.9", "0.5", None)}
    np.testing.assert_array_equal(drawn[""], drawn["0.9"])
    assert np.abs(drawn["0.9"] - drawn["0.5"]).max() > 1e-5 and np.abs(drawn[None] - drawn["0.5"]).max() > 1e-5
    with pytest.raises(ValueError, match="kept: 0.5, 0.9"):
        fae.generate([0], ema="0.99")


def test_settings_say_all_that_decides_the_images(fae: fae_jax.FAE, tmp_path: Path):
    for _, images, _ in Drawing(fae=fae, folder=tmp_path, labels=np.asarray([0, 1]), seed=3, ema="0.5"):
        assert images.shape == (2, 32, 32, 3)
    settings = json.loads((tmp_path / "settings.json").read_text())
    weights = settings.pop("weights")
    assert weights == fae.hashes((*fae.tokenizer.decodes, "generator"), "0.5")
    assert weights["generator"] != fae.hashes(("generator",), "0.9")["generator"]
    assert settings.pop("train_shift") == fae.config.generator.flow_matching.train_shift
    assert (settings.pop("checkpoint"), settings.pop("ema")) == (STEPS, "0.5")
    sampling = dataclasses.asdict(fae.config.sampling)
    del sampling["batch"]  # decides no image
    asked = {"label_policy": sampling.pop("labels"), "dtype": sampling.pop("dtype") or fae.config.compute.dtype}
    asked |= {
        "seed": 3,
        "count": 2,
        "function_evaluations": 6,  # t = 1, .88, .71, .45: two where the weight is not 1
        "guidance": json.loads(json.dumps(sampling["guidance"])),
    }
    assert settings == {**sampling, **asked}


def test_what_was_trained_in_bfloat16_can_be_drawn_in_float32(fae: fae_jax.FAE):
    def drawn(dtype: str) -> np.ndarray:
        config, parts = fae.config, copy.copy(fae.parts)
        parts.config = dataclasses.replace(
            config,
            compute=dataclasses.replace(config.compute, dtype="bfloat16"),
            sampling=dataclasses.replace(config.sampling, dtype=dtype),
        )
        del parts.__dict__["tokenizer"]
        return fae_jax.FAE(parts).generate([2, 7], seed=5)

    exact = fae.generate([2, 7], seed=5)
    np.testing.assert_allclose(drawn("float32"), exact, atol=1e-5)
    assert np.abs(drawn("") - exact).max() > 1e-3


@pytest.mark.parametrize("labels", [[-1], [11], [], np.ones((2, 2), int)])
def test_labels_that_are_none(fae: fae_jax.FAE, labels: list | np.ndarray):
    with pytest.raises(ValueError, match="label"):
        fae.generate(labels)


def test_no_class_is_a_label_too_and_guides_nothing(fae: fae_jax.FAE):
    free = fae.generate([10, 10], guidance=None, seed=2)
    np.testing.assert_allclose(fae.generate([10, 10], guidance=3.0, seed=2), free, atol=1e-4)


def test_progress_counts_images_and_evaluations_are_those_made(fae: fae_jax.FAE):
    seen: list[int] = []
    fae.generate([1] * 7, progress=seen.append)
    assert seen == [5, 7]
    evaluations = fae.generator.evaluations
    assert evaluations(fae.settings(guidance=None)) == 4
    assert evaluations(fae.settings(guidance=None, sampler="heun", steps=6)) == 12
    assert evaluations(fae.settings(guidance=((0.0, 1.0, 2.0),))) == 8


@pytest.mark.parametrize(
    ("given", "wanted"),
    [(None, ()), (2.5, ((0.0, 0.7, 2.5),)), (((0.1, 0.4, 3.0),), ((0.1, 0.4, 3.0),)), ("config", ((0.0, 1.0, 9.0),))],
)
def test_what_is_said_of_guidance(given: object, wanted: tuple):
    schedule = guidance_schedule(given, guidance_schedule(((0.0, 1.0, 9.0),), ()))
    assert schedule == guidance_schedule(wanted, ())


@pytest.mark.parametrize("given", ["strong", 1j, True, {1}, [1, 2]])
def test_guidance_that_is_none_of_these(unchecked_shapes: None, given: object):
    with pytest.raises(ValueError, match="guidance"):
        guidance_schedule(given, ())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: (x * 127.5 + 127.5).astype(np.uint8), "floats in .-1, 1., got uint8"),
        (lambda x: x * 127.5 + 127.5, "floats in .-1, 1., got .* to"),
        (lambda x: np.where(np.arange(3) == 1, np.nan, x), "floats in .-1, 1., got nan to nan"),
        (lambda x: x.repeat(2, 1).repeat(2, 2), r"shape \(b, 32, 32, 3\), got \(3, 64, 64, 3\)"),
        (lambda x: x[0], "have the shape"),
        (lambda x: x[:0], "have the shape"),
    ],
)
def test_images_that_are_none(fae: fae_jax.FAE, images: jax.Array, unchecked_shapes: None, change, message: str):
    for use in (fae.encode, fae.posterior, fae.features, fae.outputs):
        with pytest.raises(ValueError, match=message):
            use(change(np.asarray(images)))


def test_latents_and_features_of_another_shape(fae: fae_jax.FAE, unchecked_shapes: None):
    for use in (fae.decode, fae.reconstruct_features, fae.compress):
        for shape in ((2, 8, 8, 4), (2, 4, 4, 5), (2, 16, 4), (0, 4, 4, 4)):
            with pytest.raises(ValueError, match="an array of shape .b, 4, 4, .*. is needed, got"):
                use(np.zeros(shape, np.float32))


@pytest.mark.parametrize("seed", [-1, 2**32, 2**33, 10**20, 1.5])
def test_seeds_that_would_be_anothers_twin(fae: fae_jax.FAE, unchecked_shapes: None, seed: object):
    with pytest.raises(ValueError, match=f"seed must be a whole number from 0 to 4294967295, got {seed}"):
        fae.generate([0], seed=seed)


def test_settings_that_are_none(fae: fae_jax.FAE):
    with pytest.raises(ValueError, match="field sampling.sampler must be one of euler, .*, got 'dpm'"):
        fae.generate([0], sampler="dpm")
    with pytest.raises(ValueError, match="field sampling.steps must be at least 1, got 0"):
        fae.generate([0], steps=0)


def test_a_directory_that_is_no_fae_or_not_finished_says_so(tmp_path: Path, finished: Path):
    with pytest.raises(FileNotFoundError, match="is not a working directory"):
        fae_jax.load(tmp_path)
    (tmp_path / "config.json").write_text((finished / "config.json").read_text())
    with pytest.raises(ValueError, match="has no finished stage encoder; run `fae train encoder --workdir"):
        fae_jax.load(tmp_path)
