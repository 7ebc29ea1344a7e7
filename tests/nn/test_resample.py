import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from fae_jax.nn.resample import resampling_matrix, resize, resize_rounded, resize_table, resize_tf1

WAYS = (resize_rounded, resize)
RESAMPLES = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@pytest.mark.parametrize("target", [(13, 40), (29, 9)])
@pytest.mark.parametrize("kind", sorted(RESAMPLES))
def test_antialiased_is_pil_on_floats(kind, target):
    image = np.random.default_rng(0).standard_normal((21, 24)).astype(np.float32)
    want = np.asarray(Image.fromarray(image).resize(target[::-1], RESAMPLES[kind]))
    got = resize(jnp.asarray(image)[None, :, :, None], target, kind)[0, :, :, 0]
    np.testing.assert_allclose(got, want, atol=2e-5)


@pytest.mark.parametrize("target", [(13, 40), (29, 9)])
def test_plain_bicubic_is_jax_own(target):
    image = jax.random.normal(jax.random.key(0), (1, 21, 24, 3))
    want = jax.image.resize(image, (1, *target, 3), jax.image.ResizeMethod.CUBIC_PYTORCH, antialias=False)
    np.testing.assert_allclose(resize(image, target, "bicubic", antialias=False), want, atol=2e-5)


@pytest.mark.parametrize("kind", sorted(RESAMPLES))
@pytest.mark.parametrize("source", [(64, 64), (9, 9), (33, 40), (24, 50)])
def test_in_whole_numbers_it_is_pil_bit_for_bit(kind, source):
    images = np.random.default_rng(0).integers(0, 256, (2, *source, 3), dtype=np.uint8)
    images[1] = np.where(images[1] < 128, 0, 255)  # over- and undershoots
    want = [np.asarray(Image.fromarray(image).resize((24, 24), RESAMPLES[kind])) for image in images]
    np.testing.assert_array_equal(resize_rounded(jnp.asarray(images), (24, 24), kind), want)


def test_of_floats_the_rounded_resize_has_the_same_values_and_the_slope_of_the_exact_one():
    images = np.random.default_rng(0).integers(0, 256, (1, 9, 12, 3), np.uint8)
    floats = jnp.asarray(images, jnp.float32) + np.random.default_rng(1).uniform(-0.4, 0.4, images.shape)
    weight = np.random.default_rng(2).normal(size=(1, 6, 5, 3))
    slope = {way: jax.grad(lambda x, way=way: jnp.sum(weight * way(x, (6, 5), "bicubic"))) for way in WAYS}
    np.testing.assert_array_equal(
        *(resize_rounded(each, (6, 5), "bicubic") for each in (floats, jnp.asarray(images)))
    )
    np.testing.assert_array_equal(*(slope[way](floats) for way in WAYS))


def test_tensorflow_1_resizes_without_half_pixel_centres():
    run = jax.jit(resize_tf1, static_argnums=1)
    column = jnp.asarray([10, 20, 40], jnp.uint8)[None, :, None, None]
    for target, want in ((6, [10, 15, 20, 30, 40, 40]), (2, [10, 30])):
        np.testing.assert_array_equal(run(column, (target, 1))[0, :, 0, 0], want)
    both = run(jnp.asarray([[0, 10], [20, 50]], jnp.uint8)[None, :, :, None], (4, 4))[0, :, :, 0]
    np.testing.assert_array_equal(both[1], [10, 20, 30, 30])


def test_rows_sum_to_one_and_constants_stay():
    for kind in ("nearest", "bilinear", "bicubic"):
        for source, target in ((37, 16), (16, 37), (5, 5), (1, 4)):
            matrix = resampling_matrix(source, target, kind, antialias=False)
            assert matrix.shape == (target, source)
            np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-6)
    assert np.array_equal(resampling_matrix(6, 3, "nearest", antialias=False).argmax(axis=1), [0, 2, 4])


def test_a_table_keeps_its_own_grid_and_moves_with_the_offset():
    table = jax.random.normal(jax.random.key(0), (37 * 37, 4))
    assert resize_table(table, (37, 37), (37, 37), "bicubic", offset=0.1) is table
    plain = resize_table(table, (37, 37), (16, 12), "bicubic")
    moved = resize_table(table, (37, 37), (16, 12), "bicubic", offset=0.1)
    assert plain.shape == moved.shape == (192, 4) and np.abs(plain - moved).max() > 1e-2


def test_refusals():
    with pytest.raises(ValueError, match="resampling 'area' is unknown"):
        resampling_matrix(3, 4, "area", antialias=False)
    with pytest.raises(ValueError, match="not defined with antialias=True"):
        resampling_matrix(3, 4, "nearest", antialias=True)
