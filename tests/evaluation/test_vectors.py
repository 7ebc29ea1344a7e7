"""What is kept of a split, on images whose features are their colours."""

import jax.numpy as jnp
import numpy as np
import pytest
from fake_fae import FakeFAE, Images, colours, fake_encoder, view

from fae_jax.evaluation.vectors import Vectors, gather, pool, reads_patches
from fae_jax.evaluation.views import walk


def test_pooling():
    tokens = np.arange(12.0, dtype=np.float32).reshape(2, 3, 2)
    np.testing.assert_array_equal(pool(tokens, "mean"), [[2, 3], [8, 9]])
    np.testing.assert_array_equal(pool(tokens, "flat"), tokens.reshape(2, 6))
    with pytest.raises(ValueError, match="'max' is unknown; use mean or flat"):
        pool(tokens, "max")


def test_a_walk_sees_every_image_once_and_no_filling():
    fae, source, seen = FakeFAE(blue=0.5), Images(10), []
    vectors = gather(walk(fae, source, what="x"), count=10, latent_pooling="flat", also=seen.append)
    x = colours(source.images)
    assert [len(part.labels) for part in seen] == [4, 4, 2]
    np.testing.assert_array_equal(vectors.labels, np.arange(10) % 3)
    np.testing.assert_allclose(vectors.x, x.mean(1), atol=1e-6)
    np.testing.assert_allclose(vectors.z, x[..., :2].reshape(10, 8), atol=1e-6)
    np.testing.assert_allclose(vectors.reconstructed, np.c_[x.mean(1)[:, :2], np.full(10, 0.5)], atol=1e-6)
    np.testing.assert_allclose(vectors.tokens, x.max(1), atol=1e-6)
    assert vectors.pooled is None


def test_class_tokens_of_the_last_blocks_oldest_first_and_none_where_there_is_none():
    fae, source = FakeFAE(), Images(5)
    vectors = gather(walk(fae, source, what="x", layers=2, limit=3), count=3, latent_pooling="mean")
    last = colours(source.images).max(1)[:3]
    np.testing.assert_allclose(vectors.tokens, np.concatenate([last - 1, last], axis=1), atol=1e-6)
    without = FakeFAE(fake_encoder(cls=False))
    assert gather(walk(without, source, what="x"), count=5, latent_pooling="mean").tokens is None
    with pytest.raises(ValueError, match="'fake' gives no single blocks"):
        without.outputs(np.zeros((1, 2, 2, 3), np.float32), 2)


def test_the_encoders_own_pooling_is_kept_where_it_reads_patches():
    def gathered(own):
        fae = FakeFAE(fake_encoder(pool=own), blue=0.5)
        return gather(walk(fae, Images(5), what="x"), count=5, latent_pooling="mean")

    brightest = gathered(lambda params, patches, cls: patches.max(axis=1))
    np.testing.assert_allclose(brightest.pooled, colours(Images(5).images).max(1), atol=1e-6)
    np.testing.assert_allclose(brightest.pooled_reconstructed[:, 2], 0.5)
    assert gathered(lambda params, patches, cls: 2 * cls).pooled is None


def test_whether_a_head_reads_patches():
    seen = view(FakeFAE(), Images(3).images)
    assert reads_patches(lambda patches, cls: patches.mean(1) + cls, seen)
    assert not reads_patches(lambda patches, cls: cls, seen)


def test_vectors_must_be_as_many(unchecked_shapes):
    x = np.zeros((3, 2))
    with pytest.raises(ValueError, match="as many and at least one"):
        Vectors(labels=np.zeros(2, int), x=x, reconstructed=x, z=x)


class Damaged(Images):
    def __getitem__(self, position):
        from fae_jax.data.decode import BadImage

        if position != 2:
            raise BadImage(f"{position}: no image")
        return super().__getitem__(position)


def test_images_that_cannot_be_decoded_are_left_out():
    vectors = gather(walk(FakeFAE(), Damaged(6), what="x"), count=6, latent_pooling="mean")
    assert vectors.labels.tolist() == [2] and len(vectors.x) == 1
    assert jnp.allclose(vectors.x[0], colours(Damaged(6).images).mean(1)[2], atol=1e-6)
