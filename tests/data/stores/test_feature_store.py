"""Features encoded once: what is stored, who shares it, and that training on it is training on the images."""

import contextlib
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from running import TINY, curve

from fae_jax.config import check, load_config, override
from fae_jax.data.pixels import to_pixels
from fae_jax.data.stores import feature_store as module
from fae_jax.evaluation.views import View
from fae_jax.model import FAE
from fae_jax.stages import stage_of
from fae_jax.stages.experiment import Experiment
from fae_jax.stages.latents import open_latents
from fae_jax.stages.running import check_request, run_stage
from fae_jax.stages.training import batches as batches_of
from fae_jax.workdir import Workdir

SHORT = (("compute.scan", "True"), ("features.steps", "3"), ("pixels.steps", "2"))


def begun(finished: Path, workdir: Path, *overrides: tuple[str, str]) -> Experiment:
    """An experiment of its own on the trained encoder of another."""
    config = check(override(load_config(str(TINY)), [*SHORT, *overrides]))
    workdir.mkdir(parents=True)
    shutil.copytree(finished / "encoder", workdir / "encoder")
    return Experiment(config, Workdir(workdir))


@pytest.fixture(scope="module")
def stored(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """The features stage of the tiny experiment, mirrored twins and all, trained from a store."""
    root = tmp_path_factory.mktemp("stored")
    experiment = begun(finished, root / "run", ("data.features", str(root / "store")))
    assert run_stage(experiment, "features")
    return experiment


def test_every_image_and_its_twin_are_there(stored: Experiment):
    store = stored.parts.feature_store("train").open()
    source = stored.images.source("train")
    assert len(store) == len(source) and store.header.views == 2
    for view in (0, 1):
        image = source[7]["image"][None, :, :: -1 if view else 1]
        want = np.asarray(stored.parts.encoder.features(stored.parts.encoder.params, to_pixels(image)))
        stored_features = store.read([7], [view])
        assert stored_features["features"].dtype == np.float16 and stored_features["label"][0] == source.labels[7]
        np.testing.assert_allclose(stored_features["features"], want, rtol=2e-3, atol=2e-3)


def test_statistics_are_those_of_all_that_is_stored(stored: Experiment):
    store = stored.parts.feature_store("train").open()
    values = np.concatenate([store.read(range(len(store)), [view] * len(store))["features"] for view in (0, 1)])
    kept = json.loads((stored.workdir.root / "features" / "stage.json").read_text())["facts"]
    assert kept["tokens"] == 2 * len(store) * 16
    np.testing.assert_allclose(kept["mean"], values.astype(np.float64).mean((0, 1)), atol=1e-9)
    np.testing.assert_allclose(kept["std"], values.astype(np.float64).std((0, 1)), rtol=1e-9)


def test_images_come_beside_their_features_mirrored_alike(stored: Experiment):
    with contextlib.closing(batches_of(stored, stage_of("pixels"))(5)) as batches:
        batch = next(batches)
    want = stored.parts.encode_here(batch["image"])
    np.testing.assert_allclose(
        stored.parts.tokenizer.raw_features({}, {"features": np.asarray(batch["features"])}), want, atol=5e-3
    )
    plain = np.stack([stored.images.source("train")[int(index)]["image"] for index in batch["index"]])
    mirrored = (batch["image"] != plain).any((1, 2, 3))
    assert 0 < mirrored.sum() < 8
    np.testing.assert_array_equal(batch["image"][mirrored], plain[mirrored][:, :, ::-1])


def test_training_on_stored_features_is_training_on_images(finished: Path, stored: Experiment, tmp_path: Path):
    runs = []
    for name, folder in (("with", str(tmp_path / "store")), ("without", "")):
        experiment = begun(finished, tmp_path / name, ("data.flip", "False"), ("data.features", folder))
        run_stage(experiment, "features")
        runs.append([json.loads(row) for row in curve(tmp_path / name, "features")])
    for ours, theirs in zip(*runs, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=2e-3)
    assert not (tmp_path / "store" / stored.parts.feature_store("train").identity.hash).exists()


def test_another_experiment_shares_it_and_the_encoder_never_runs(finished, stored, tmp_path, monkeypatch):
    other = begun(
        finished, tmp_path / "other", ("data.features", stored.config.data.features), ("features.beta", "1e-3")
    )
    monkeypatch.setattr(module, "write_cache", None)
    assert (
        other.parts.feature_store("train").open().header.to_json()
        == stored.parts.feature_store("train").open().header.to_json()
    )
    assert other.parts.feature_store("train").bytes_to_write() == 0
    assert run_stage(other, "pixels") and other.is_done(stage_of("pixels"))
    assert stage_of("pixels").frozen_parts(other.config) == ()


def test_only_an_encoder_without_class_token_is_evaluated_from_a_store(stored: Experiment, monkeypatch):
    """The tiny ViT has a class token, which is not stored; without one, held-out features are kept as well."""
    assert stored.parts.stored_features("heldout") is None
    whole = stored.parts.encoder
    bare = dataclasses.replace(whole, apply=lambda params, pixels: whole.apply(params, pixels)._replace(cls=None))
    monkeypatch.setitem(vars(stored.parts), "encoder", bare)
    monkeypatch.setitem(vars(stored.parts.tokenizer), "encoder", bare)
    stored_features = stored.parts.stored_features("heldout")
    assert (
        len(stored_features) == len(stored.images.source("heldout"))
        and stored_features.directory != stored.parts.feature_store("train").directory
    )
    batch = {
        "image": stored.images.source("heldout")[5]["image"][None],
        "features": stored_features.read([5], [0])["features"],
    }
    view = View(FAE(stored.parts), {**batch, "mask": np.array([True])})
    want = stored.parts.encode_here(batch["image"])
    np.testing.assert_allclose(view.features, want, rtol=2e-3, atol=2e-3)


def test_an_interrupted_store_is_gone_on_with(stored: Experiment, tmp_path: Path):
    whole, calls = stored.parts.feature_store("train"), []

    def failing(images: np.ndarray):
        calls.append(len(images))
        if len(calls) > 12:  # a shard of 64 images is 4 batches of 2 views
            raise KeyboardInterrupt
        return whole.encode(images)

    planned = dataclasses.replace(whole, root=tmp_path / "none").bytes_to_write()
    with pytest.raises(KeyboardInterrupt):
        dataclasses.replace(whole, root=tmp_path, encode=failing).open()
    begun_store = dataclasses.replace(whole, root=tmp_path)
    assert not begun_store.finished and 0.7 * planned < begun_store.bytes_to_write() < 0.9 * planned
    assert begun_store.open().header.to_json() == whole.open().header.to_json()


def test_a_disk_too_small_is_refused_before_anything_is_written(finished, tmp_path, monkeypatch):
    experiment = begun(finished, tmp_path / "run", ("data.features", str(tmp_path / "a" / "b")))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6, 10**5))
    images = len(experiment.images.source("train"))
    needed = 1.01 * 2 * images * (16 + 2 * 16 * 16)
    with pytest.raises(
        ValueError, match=f"feature store of {images} images takes {needed / 1e6:.2f} MB more in .*free"
    ):
        check_request(experiment, "features")
    assert not (tmp_path / "a").exists()
    (tmp_path / "a").write_text("")
    with pytest.raises(ValueError, match="cannot be written to .*Not a directory.; name a folder"):
        check_request(experiment, "features")


def test_without_compression_the_features_stage_only_measures(finished: Path, tmp_path: Path):
    identity = (("compressor.kind", "identity"), ("feature_decoder.kind", "identity"), ("data.flip", "False"))
    experiment = begun(finished, tmp_path / "identity", *identity)
    assert not experiment.is_done(stage_of("features"))
    assert run_stage(experiment, "features") and experiment.is_done(stage_of("features"))
    assert not (tmp_path / "identity" / "features" / "checkpoints").exists()
    assert run_stage(experiment, "cache")
    source, cached = experiment.images.source("train"), open_latents(experiment.workdir).source
    want = experiment.parts.tokenizer.space.enter(experiment.parts.encode_here(source[3]["image"][None]))
    np.testing.assert_allclose(cached[3]["mean"].astype(np.float32), want[0], rtol=1e-2, atol=1e-2)
    assert cached.header.shape == (16, 16)


def test_uncompressed_features_may_still_have_a_decoder(finished: Path, tmp_path: Path):
    experiment = begun(finished, tmp_path / "half", ("compressor.kind", "identity"))
    assert run_stage(experiment, "features") and experiment.is_done(stage_of("features"))
    assert experiment.parts.params("feature_decoder") and not experiment.parts.params("compressor")
