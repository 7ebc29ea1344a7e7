"""Encoders as extractors: what they are given, which taps they have, and that the variant says so."""

import functools
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from fae_jax.encoders import Encoder, EncoderOutput, registry
from fae_jax.encoders.preprocess import RESAMPLES, Preprocessing
from fae_jax.encoders.pretrained import build
from fae_jax.encoders.published import ENCODERS, HALF, IMAGENET, Published
from fae_jax.extractors import EXTRACTORS, encoders, load_extractor
from fae_jax.extractors.encoders import Reading
from fae_jax.kinds import own

sys.path[:0] = [str(Path(__file__).parents[1] / "encoders")]

from published_files import DINOV2, SIGLIP, write  # noqa: E402


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (2, 50, 50, 3), dtype=np.uint8)


@pytest.fixture
def small(tmp_path, monkeypatch):
    """{name: folder} of two published encoders of a few parameters."""
    monkeypatch.setattr(registry, "_builders", dict(registry._builders))
    ways = {
        "small_dinov2": (DINOV2, Preprocessing(shortest=48, crop=42, **IMAGENET)),
        "small_siglip": (SIGLIP, Preprocessing(square=32, resample="bilinear", **HALF)),
    }
    for name, (fields, way) in ways.items():
        entry = Published(repository=f"someone/{name}", fields=fields, preprocessing=way)
        monkeypatch.setitem(ENCODERS, name, entry)
        registry.register(name, functools.partial(build, name, entry))
    return {name: write(tmp_path / name, fields) for name, (fields, _) in ways.items()}


@pytest.mark.parametrize(
    ("name", "side", "kind", "way", "taps"),
    [
        ("small_dinov2", 42, "bicubic", IMAGENET, {"cls", "mean"}),
        ("small_siglip", 32, "bilinear", HALF, {"pooled", "mean"}),
    ],
)
def test_a_published_encoder_reads_what_its_processor_would(small, images, name, side, kind, way, taps):
    extractor = load_extractor(name, small[name])
    resized = np.stack([np.asarray(Image.fromarray(image).resize((side, side), RESAMPLES[kind])) for image in images])
    pixels = (resized / np.float32(255) - np.float32(way["mean"])) / np.float32(way["std"])
    encoder = registry.create(name, weights=small[name], image_size=side, input_size=side)
    both = jax.jit(lambda params, images, pixels: (extractor.apply(params, images), encoder.apply(params, pixels)))
    got, output = both(extractor.params, images, pixels)
    assert got.keys() == taps and extractor.weights_hash == encoder.weights_hash
    want = {"cls": output.cls, "pooled": output.pooled, "mean": output.patches.mean(1)}
    for tap, value in got.items():
        np.testing.assert_allclose(value, want[tap], atol=2e-5)
    assert extractor.variant.startswith(f"{name} at {side}×{side}, {kind} resize in 8 bits as PIL's")


def test_slopes_go_through_it_to_images_of_floats(small, images):
    extractor = load_extractor("small_siglip", small["small_siglip"])
    floats = jnp.asarray(images, jnp.float32)

    @jax.jit
    def slope(floats, images):
        loss = lambda given: jnp.sum(extractor.apply(extractor.params, given)["mean"] ** 2)
        return loss(images), *jax.value_and_grad(loss)(floats)

    exact, value, given = slope(floats, images)
    assert value == pytest.approx(float(exact), rel=1e-5) and np.count_nonzero(given) == given.size
    with pytest.raises(ValueError, match=r"images \(b, y, x, 3\) of uint8, got \(2, 50, 50, 3\) of float32"):
        extractor.apply(extractor.params, floats)


@pytest.mark.parity
def test_fd_loss_resizes_in_float_and_fills_up_after_the_normalisation(small, images):
    torch = pytest.importorskip("torch")
    reading = encoders._fd_loss("small_dinov2", 60, 70)
    extractor = reading("fd", small["small_dinov2"])
    encoder = registry.create("small_dinov2", weights=small["small_dinov2"], image_size=70)
    ours = jax.jit(lambda images: encoder.preprocess(reading._pixels(encoder, images)))(images)
    values = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    resized = torch.nn.functional.interpolate(values, (60, 60), mode="bicubic", antialias=True)
    mean, std = (torch.tensor(IMAGENET[key])[:, None, None] for key in ("mean", "std"))
    theirs = torch.nn.functional.pad((resized - mean) / std, (0, 10, 0, 10)).permute(0, 2, 3, 1)
    np.testing.assert_allclose(ours, theirs, atol=2e-5)
    assert np.abs(np.asarray(ours)[:, 60:]).max() < 1e-6
    assert extractor.variant == (
        "small_dinov2 at 60×60, bicubic resize, antialiased, in float, filled up to 70×70 (FD-loss)"
    )


def test_fd_loss_reads_what_fdr6_names():
    kinds = {name: own(EXTRACTORS, name) for name in EXTRACTORS if name.startswith("fd_loss_")}
    sizes = {kind.encoder: (kind.side, kind.filled) for kind in kinds.values() if isinstance(kind, Reading)}
    assert sizes == {
        "dinov2_l14": (256, 19 * 14),
        "mae_l16": (224, 224),
        "siglip2_so400m16_256": (224, 224),
        "clip_l14": (256, 19 * 14),
    }
    assert kinds["fd_loss_mae"].source == "facebook/vit-mae-large" and sizes.keys() <= ENCODERS.keys()


def test_an_encoder_of_another_package(monkeypatch, images):
    monkeypatch.setattr(registry, "_builders", dict(registry._builders))

    def make(*, weights, image_size):
        return Encoder(
            name="theirs",
            apply=lambda params, pixels: EncoderOutput(pixels.reshape(len(pixels), -1, 3) * params["scale"]),
            params={"scale": jnp.float32(2)},
            preprocess=lambda images: images,
            grid=(image_size, image_size),
            width=3,
            weights_hash="ab",
        )

    registry.register("theirs", make)
    extractor = load_extractor("theirs")
    got = jax.jit(extractor.apply)(extractor.params, images[:, :32, :32] // 2 + 64)
    assert got.keys() == {"mean"}
    resized = [np.asarray(Image.fromarray(image).resize((256, 256), 3)) for image in images[:, :32, :32] // 2 + 64]
    np.testing.assert_allclose(got["mean"], 2 * (np.mean(resized, (1, 2)) / 127.5 - 1), atol=1e-4)
    assert extractor.variant == "theirs at 256×256, bicubic resize in 8 bits as PIL's"
    with pytest.raises(ValueError, match="'theirs' looks at images .* of uint8, got"):
        extractor.apply(extractor.params, images / 255)
