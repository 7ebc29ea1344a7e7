"""Stage Ia's loss and its options; and that every kind of latent goes all the way to samples."""

import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from network_reference import parameters
from running import TINY

import fae_jax
from fae_jax.config import check, load_config, override
from fae_jax.stages.experiment import Experiment
from fae_jax.stages.features import channel_bars, features_loss, noise_levels, noisy
from fae_jax.stages.latents import open_latents
from fae_jax.stages.running import run_stage
from fae_jax.tokenizers.fae import Facts, FAETokenizer
from fae_jax.workdir import Workdir

FACTS = Facts(
    encoder="vit", weights="", settings={}, grid=(4, 4), width=16, tokens=1, mean=(1.0,) * 16, std=(2.0,) * 16
)
RAW = jnp.asarray(np.random.default_rng(0).normal(1, 2, (4, 16, 16)), jnp.float32)
KEYS = jax.random.split(jax.random.key(0), 4)


def setting(*changes: tuple[str, str]):
    config = check(override(load_config(str(TINY)), changes))
    networks = FAETokenizer.build(config, FACTS)
    latents = jnp.zeros((1, 16, networks.compressor.latent_width))
    params = {
        "compressor": parameters(networks.compressor, RAW),
        "feature_decoder": parameters(networks.feature_decoder, latents),
        "semantic_head": {"linear": {"kernel": np.eye(latents.shape[-1], 16, dtype=np.float32)}},
    }
    return networks, config.features, jax.tree.map(jnp.asarray, params)


def run(networks, section, params, keys=KEYS):
    return features_loss(networks, section, params, {}, {"features": RAW}, keys, jnp.zeros(()))


def lose(*changes: tuple[str, str], keys=KEYS) -> tuple[float, dict[str, float]]:
    networks, section, params = setting(*changes)
    loss, metrics = jax.jit(lambda params: run(networks, section, params, keys))(params)
    return float(loss), {name: float(value) for name, value in metrics.items()}


@pytest.fixture(scope="module")
def plain():
    return lose()


def test_the_loss_is_error_and_divergence_and_sums_when_asked(plain):
    loss, metrics = plain
    assert loss == pytest.approx(metrics["feature_error"] + 5e-4 * metrics["kl_per_token"] / 4, rel=1e-5)
    assert metrics["explained_variance"] == pytest.approx(1 - metrics["feature_error"], rel=1e-4)
    summed, same = lose(("features.reduction", "sum"), ("features.beta", "0.1"))
    assert summed == pytest.approx(16 * (16 * same["feature_error"] + 0.1 * same["kl_per_token"]), rel=1e-5)
    assert same["feature_error"] == pytest.approx(metrics["feature_error"], rel=1e-5)


def test_channels_are_watched():
    networks, section, params = setting()
    moments = params["compressor"]["moments"]
    moments["kernel"] = moments["kernel"].at[:, 1].set(0).at[:, 4:].set(0)
    moments["bias"] = moments["bias"].at[4:].set(2 * jnp.log(jnp.asarray([0.1, 0.2, 0.3, 0.8])))
    metrics = run(networks, section, params)[1]
    found = [float(metrics[name]) for name in ("posterior_std_min", "posterior_std", "posterior_std_max")]
    np.testing.assert_allclose(found, [0.1, 0.35, 0.8], rtol=1e-5)
    assert float(metrics["inactive_channels"]) == 1


def test_feature_noise_hides_features_from_the_compressor_and_not_from_the_target():
    """With a decoder that says nothing, the error is the target's energy, whatever the compressor saw."""
    found = {}
    for noise in ("0.0", "2.0"):
        networks, section, params = setting(("features.feature_noise", noise))
        silent = {**params, "feature_decoder": jax.tree.map(jnp.zeros_like, params["feature_decoder"])}
        found[noise] = run(networks, section, silent)[1]
    energy = float(jnp.mean(setting()[0].space.enter(RAW) ** 2))
    assert all(float(metrics["feature_error"]) == pytest.approx(energy, rel=1e-5) for metrics in found.values())
    assert float(found["2.0"]["kl_per_token"]) > 1.2 * float(found["0.0"]["kl_per_token"])


def test_latent_noise_has_one_level_for_each_image():
    levels = noise_levels(jax.random.split(jax.random.key(1), 2000), 0.5)
    assert levels.shape == (2000, 1, 1) and float(levels.std()) == pytest.approx(0.5, rel=0.1)
    drawn = noisy(jnp.zeros((2000, 4, 5)), jax.random.split(jax.random.key(2), 2000), levels)
    np.testing.assert_allclose(drawn[0].std(), abs(levels[0, 0, 0]), rtol=0.5)
    values = jnp.ones((2, 3, 4))
    assert noisy(values, KEYS[:2], 0.0) is values and noise_levels(KEYS, 0.0) == 0.0


def test_each_weight_adds_its_term_and_no_other(plain):
    terms = {}
    for name in ("structure", "continuity", "semantics"):
        loss, metrics = lose((f"features.{name}_weight", "2.0"))
        terms[name] = metrics[name]
        assert loss == pytest.approx(plain[0] + 2 * metrics[name], rel=1e-4)
        assert set(metrics) - set(plain[1]) == {name}
    assert all(value > 0 for value in terms.values())


@pytest.mark.parametrize("posterior", ["rms", "sphere"])
def test_bounded_latents_pay_no_divergence(posterior):
    loss, metrics = lose(("compressor.posterior.kind", posterior), ("features.beta", "100.0"))
    assert loss == pytest.approx(metrics["feature_error"], rel=1e-6) and "kl_per_token" not in metrics


def test_bars_stand_for_channels():
    bars = channel_bars(np.array([0.0, 0.5, 1.0, 2.0]), 40, rows=8)
    assert bars.shape == (8, 40, 3)
    heights = (bars[..., 0] == 240).sum(0)
    np.testing.assert_array_equal(heights, np.repeat([0, 2, 4, 8], 10))


SMALL = [("compressor.transformer.hidden", "24"), ("compressor.transformer.depth", "1")]
ALL = [(f"features.{name}", "0.1") for name in ("latent_noise", "feature_noise", "structure_weight")]
ALL += [("features.continuity_weight", "0.1"), ("features.semantics_weight", "0.1")]
KINDS = {
    "sphere": [("compressor.posterior.kind", "sphere"), ("compressor.kind", "transformer"), *SMALL, *ALL],
    "rms": [("compressor.posterior.kind", "rms"), ("compressor.kind", "linear"), ("features.latent_noise", "0.3")],
    "fixed_variance": [
        ("compressor.posterior.kind", "fixed_variance"),
        ("features.reduction", "sum"),
        ("features.beta", "0.1"),
    ],
    "identity": [("compressor.kind", "identity"), ("feature_decoder.kind", "identity")],
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_latent_goes_through_cache_and_generator_to_images(kind: str, finished: Path, tmp_path: Path):
    sizes = [
        ("features.steps", "2"),
        ("generator.steps", "2"),
        ("data.flip", "False"),
    ]
    config = check(override(load_config(str(TINY)), [*sizes, *KINDS[kind]]))
    for stage in ("encoder", "pixels"):
        shutil.copytree(finished / stage, tmp_path / stage)
    experiment = Experiment(config, Workdir(tmp_path))
    for stage in ("features", "cache", "generator"):
        assert run_stage(experiment, stage)
    experiment.workdir.begin(config)
    cached = open_latents(experiment.workdir).source
    mean = np.stack([cached[i]["mean"] for i in range(20)]).astype(np.float32)
    if kind in ("sphere", "rms"):
        np.testing.assert_allclose((mean**2).mean(-1), 1, rtol=0.03)
        assert cached.header.statistics.noise.max() / cached.header.statistics.count < 1e-12
    if kind == "fixed_variance":
        np.testing.assert_allclose(cached.header.statistics.noise / cached.header.statistics.count, 0.09, rtol=0.01)
    fae = fae_jax.load(tmp_path)
    images = fae.generate(labels=[1, 2], seed=3)
    assert images.shape == (2, 32, 32, 3) and np.isfinite(images).all() and np.ptp(images) > 0
    latents = fae.encode(images)
    assert fae.reconstruct_features(latents).shape == (2, 4, 4, 16)
