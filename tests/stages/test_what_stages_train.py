"""What the stages leave behind, and how they treat images on the way."""

import contextlib
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from running import TINY, TRAINED, curve, fae

from fae_jax.config import check, load_config, override
from fae_jax.data.pixels import side_by_side, to_pixels, to_uint8
from fae_jax.data.sources.digits import DigitsSource
from fae_jax.encoders import registry
from fae_jax.parallel.mesh import make_mesh
from fae_jax.stages.encoder import blank_patches, shift_images
from fae_jax.stages.experiment import Experiment
from fae_jax.stages.features import BARS
from fae_jax.stages.latents import open_latents
from fae_jax.stages.pixels import noise_level, noisy_features, returned_features
from fae_jax.tokenizers.fae import Facts, FAETokenizer
from fae_jax.training.checkpoints import Checkpoints
from fae_jax.training.step import example_keys
from fae_jax.workdir import Workdir


def keys(count: int, seed: int = 0) -> jax.Array:
    return jax.random.split(jax.random.key(seed), count)


def test_pixels_go_to_floats_and_back_exactly():
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, -1)
    pixels = to_pixels(levels)
    assert float(pixels.min()) == -1 and float(pixels.max()) == 1
    np.testing.assert_array_equal(to_uint8(pixels), levels)
    assert to_uint8(jnp.full((1, 1, 1, 3), 1.7)).max() == 255 and to_uint8(jnp.full((1, 1, 1, 3), -1.7)).min() == 0


def test_rows_of_images_lie_under_each_other():
    rows = [np.arange(4 * 2 * 2 * 3, dtype=np.uint8).reshape(4, 2, 2, 3) + 100 * row for row in range(2)]
    sheet = side_by_side(rows)
    assert sheet.shape == (4, 8, 3)
    np.testing.assert_array_equal(sheet[2:4, 4:6], rows[1][2])


def test_images_are_shifted_each_by_its_own_key_with_edges_repeated():
    image = jnp.arange(64.0).reshape(8, 8, 1).repeat(3, -1)
    shifted = np.asarray(shift_images(jnp.stack([image] * 64), keys(64), 2))
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)), mode="edge")
    seen = set()
    for moved in shifted:
        places = [(y, x) for y in range(5) for x in range(5) if np.array_equal(padded[y : y + 8, x : x + 8], moved)]
        assert places
        seen.update(places)
    assert len(seen) > 15
    assert shift_images(image[None], keys(1), 0) is not None


def test_the_same_share_of_patches_is_blanked_in_every_image():
    blank = np.asarray(blank_patches(keys(200), 16, 0.4))
    assert (blank.sum(1) == 6).all()
    assert (blank.mean(0) > 0.2).all() and (blank.mean(0) < 0.6).all()
    assert len({row.tobytes() for row in blank}) > 150


def test_purposes_have_seeds_of_their_own():
    experiments = [
        Experiment(override(load_config(str(TINY)), [("seed", str(seed))]), Workdir("w")) for seed in (0, 1)
    ]
    seeds = [experiment.seed(purpose) for experiment in experiments for purpose in ("data", "features", "pixels")]
    assert len(set(seeds)) == 6 and all(0 <= seed < 2**31 for seed in seeds)


@pytest.mark.parametrize(
    ("relative", "standardise", "sigma"), [(False, False, 0.4), (True, False, 2.0), (True, True, 0.4)]
)
def test_noise_for_the_pixel_decoder_is_absolute_or_relative(relative: bool, standardise: bool, sigma: float):
    fields = [("pixels.noise", "0.4"), ("pixels.noise_relative", str(relative))]
    if not standardise:
        fields += [("encoder.feature_norm", "none")]
    config = check(override(load_config(str(TINY)), fields))
    facts = Facts(
        encoder="vit", weights="", settings={}, grid=(4, 4), width=16, tokens=1, mean=(3.0,) * 16, std=(4.0,) * 16
    )
    tokenizer = FAETokenizer.build(config, facts)
    features = jnp.full((64, 16, 16), 3.0)
    level = noise_level(tokenizer, config.pixels)
    noised = noisy_features(tokenizer, level, False, {}, {"features": features}, keys(64))
    assert float((noised - tokenizer.space.enter(features)).std()) == pytest.approx(sigma, rel=0.03)


def test_options_of_the_encoder_are_handed_on_where_they_are_set(monkeypatch: pytest.MonkeyPatch):
    asked = []

    def create(name: str, **options: object) -> None:
        asked.append(options)
        raise ValueError("seen")

    monkeypatch.setattr(registry, "create", create)
    own = [("encoder.train", "False"), ("encoder.name", "dinov2_b14"), ("encoder.layers", "(-3, -1)")]
    for more in (
        [],
        own,
        [*own, ("encoder.input_size", "448"), ("encoder.revision", "abc"), ("encoder.combine", "mean")],
    ):
        with pytest.raises(ValueError, match="seen"):
            _ = Experiment(override(load_config(str(TINY)), more), Workdir("w")).parts.encoder
    common = {"weights", "image_size", "dtype", "kernel", "scan"}
    assert set(asked[0]) == common
    assert {name: asked[1][name] for name in set(asked[1]) - common} == {"layers": (-3, -1), "combine": "sum"}
    assert {asked[2][name] for name in ("input_size", "revision", "combine")} == {448, "abc", "mean"}


@pytest.mark.parametrize("stage", TRAINED)
def test_each_stage_leaves_its_curve_and_a_preview(finished: Path, stage: str):
    rows = [json.loads(row) for row in curve(finished, stage)]
    assert [row["step"] for row in rows] == list(range(1, 9))
    assert all(np.isfinite(row["loss"]) and row["skipped"] == 0 for row in rows)
    assert len({row["loss"] for row in rows}) == 8
    assert sorted(folder.name for folder in (finished / stage / "checkpoints").iterdir()) == ["6", "8"]
    if stage != "generator":
        (preview,) = (finished / stage / "previews").glob("*.png")
        image = np.asarray(Image.open(preview))
        assert image.shape[1] == 16 * 32 and image.shape[0] in (64, 96, 96 + BARS) and image.std() > 10


def test_features_are_standardised_over_the_training_images(finished: Path):
    experiment = Experiment(load_config(str(TINY)), Workdir(finished))
    source = experiment.images.source("train")
    images = np.stack([source[place]["image"] for place in range(len(source))])
    raw = np.asarray(
        experiment.parts.encoder.features(experiment.parts.encoder.params, to_pixels(images)), np.float64
    )
    kept = json.loads((finished / "features" / "stage.json").read_text())["facts"]
    assert kept["tokens"] == len(source) * 16
    np.testing.assert_allclose(kept["mean"], raw.mean((0, 1)), atol=1e-4)
    np.testing.assert_allclose(kept["std"], raw.std((0, 1)), rtol=1e-3)


def test_the_cache_holds_what_the_encoder_and_compressor_say_of_every_training_image(finished: Path):
    experiment = Experiment(load_config(str(TINY)), Workdir(finished))
    source, cache = experiment.images.source("train"), open_latents(experiment.workdir).source
    assert len(cache) == len(source) and cache.header.views == 2
    assert isinstance(source, DigitsSource)
    tokenizer, params = experiment.parts.tokenizer, {"compressor": experiment.parts.params("compressor")}
    for place in (0, 63, 64, len(source) - 1):
        image = source[place]["image"][None]
        for view, shown in enumerate((image, image[:, :, ::-1])):
            raw = experiment.parts.encoder.features(experiment.parts.encoder.params, to_pixels(shown))
            mean, log_variance = tokenizer.compress(params, raw)
            record = cache.read([place], [view])
            np.testing.assert_allclose(record["mean"].astype(np.float32), mean, rtol=1e-2, atol=1e-2)
            np.testing.assert_allclose(record["log_variance"].astype(np.float32), log_variance, rtol=1e-2, atol=1e-2)
            assert record["label"][0] == source.labels[place] and record["index"][0] == place


def test_finetune_begins_where_pixels_ended(finished: Path):
    """Its first loss, before it has stepped, is that of the decoder that pixels left, not of one from scratch."""
    experiment = Experiment(load_config(str(TINY)), Workdir(finished))
    parts = experiment.parts
    mesh = make_mesh()
    params = Checkpoints(finished / "pixels" / "checkpoints").read_params("pixel_decoder", mesh)
    frozen = {part: parts.params(part) for part in ("encoder", "compressor", "feature_decoder")}
    with contextlib.closing(experiment.images.loader(8).at(0)) as batches:
        batch = {"image": next(batches)["image"]}
    images = to_pixels(batch["image"])
    step_keys = example_keys(experiment.seed("finetune"), jnp.asarray(0), 8)
    decoded = parts.tokenizer.pixel_decoder.apply(
        {"params": params}, returned_features(parts.tokenizer, "sample", frozen, batch, step_keys)
    )
    assert json.loads(curve(finished, "finetune")[0])["loss"] == pytest.approx(
        float(jnp.mean((decoded - images) ** 2)), rel=1e-4
    )


def test_a_restart_may_unroll_what_was_looped(finished: Path, tmp_path: Path):
    """compute.scan is operational: the state of one is that of the other."""
    shutil.copytree(finished, tmp_path / "run")
    folder = tmp_path / "run" / "generator" / "checkpoints"
    shutil.rmtree(folder / "8")
    _, err = fae("train", "generator", "--config", TINY, "--workdir", tmp_path / "run", "--config.compute.scan=False")
    assert "damaged" not in err and "generator: step 6 of 8" in err
    losses = [[json.loads(row)["loss"] for row in curve(run, "generator")] for run in (finished, tmp_path / "run")]
    np.testing.assert_allclose(*losses, rtol=1e-4)
