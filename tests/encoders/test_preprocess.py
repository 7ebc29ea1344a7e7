import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from fae_jax.encoders.preprocess import Preprocessing, prepare, process
from fae_jax.encoders.published import ENCODERS

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def make_image(height, width, seed=0):
    """Smooth with sharp edges, so that the kernel matters."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 11, 3), np.uint8))
    image = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).copy()
    image[height // 3 : height // 2, width // 4 : width // 2] = (255, 0, 90)
    return image


def test_prepare_only_normalises_where_nothing_is_resized():
    image = make_image(32, 32)[None]
    got = prepare(jnp.asarray(image / 127.5 - 1, jnp.float32), side=32, resize_kind="bicubic", mean=MEAN, std=STD)
    np.testing.assert_allclose(got, (image / 255 - np.array(MEAN)) / np.array(STD), atol=1e-5)


def test_prepare_antialiased_is_pil():
    image = make_image(256, 256)
    got = prepare(
        jnp.asarray(image[None] / 127.5 - 1, jnp.float32),
        side=224,
        resize_kind="bicubic_antialias",
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
    )
    want = np.asarray(Image.fromarray(image).resize((224, 224), Image.Resampling.BICUBIC), np.float32) / 255
    apart = np.abs(np.clip(got[0], 0, 1) - want)
    assert apart.max() <= 2 / 255 and apart.mean() <= 0.5 / 255  # PIL rounds between its two passes


def test_wrong_images_and_words():
    with pytest.raises(ValueError, match="must be square, got 32×16"):
        prepare(jnp.zeros((1, 32, 16, 3)), side=16, resize_kind="bicubic", mean=MEAN, std=STD)
    with pytest.raises(ValueError, match="resize 'area'"):
        prepare(jnp.zeros((1, 16, 16, 3)), side=16, resize_kind="area", mean=MEAN, std=STD)
    with pytest.raises(ValueError, match="resample 'area'"):
        Preprocessing(mean=MEAN, std=STD, resample="area")
    with pytest.raises(ValueError, match="choose one"):
        Preprocessing(mean=MEAN, std=STD, shortest=3, square=3)
    for fields in ({"size": {"height": 3, "width": 4}}, {"rescale_factor": 1.0}, {"resample": 77}, {}):
        with pytest.raises(ValueError, match="preprocessor_config.json has"):
            Preprocessing.from_json(fields)


def test_crop_larger_than_the_image_is_black_around_it():
    image = make_image(10, 7)
    got = process(image, Preprocessing(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), crop=12))
    assert got.shape == (12, 12, 3)
    np.testing.assert_allclose(got[1:11, 3:10], image / 255, atol=1e-6)
    assert got.sum() == pytest.approx(image.sum() / 255, rel=1e-5)


def test_shapes_of_every_published_processor():
    for name, entry in ENCODERS.items():
        side = entry.preprocessing.crop or entry.preprocessing.square
        assert process(make_image(70, 110), entry.preprocessing).shape == (side, side, 3), name
