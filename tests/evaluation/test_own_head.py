"""The encoder's own head on x and x̂, with heads whose answers are known."""

import jax.numpy as jnp
import numpy as np
import pytest
from fake_fae import FakeFAE, Images, colours, fake_encoder, view

from fae_jax.evaluation.own_head import ALONE, OwnHead

IMAGES = Images(40, seed=2).images
X = colours(IMAGES)
MEAN = X.mean(1)


def strongest(params, patches, cls):
    """Three classes: which colour is strongest in the mean."""
    return patches.mean(axis=1)


def result(head, labels, *, classes=3, blue=0.0, head_classes=(), mean_token=None):
    fae = FakeFAE(fake_encoder(head=head), classes=classes, blue=blue)
    own = OwnHead(fae, head_classes=head_classes, mean_token=mean_token)
    for part in (slice(0, 16), slice(16, 40)):
        own.see(view(fae, IMAGES[part], labels[part]))
    return own.as_result()


def test_top_1_on_x_and_on_the_reconstruction():
    labels = MEAN.argmax(1)
    assert len(set(labels)) == 3
    got = result(strongest, labels, blue=-9.0)  # x̂ is never blue
    blue = np.mean(labels == 2)
    assert got["x"] == 1.0 and got["reconstructed"] == pytest.approx(1 - blue)
    assert got["loss_in_points"] == pytest.approx(100 * blue) and got["agreement"] == pytest.approx(1 - blue)
    assert got["classes"] == 3 and "no_accuracy" not in got


def test_other_classes_are_compared_by_agreement_or_by_their_names():
    labels = MEAN.argmax(1)
    five = lambda params, patches, cls: jnp.pad(patches.mean(axis=1), ((0, 0), (2, 0)), constant_values=-99)
    got = result(five, labels)
    assert (
        set(got) == {"classes", "agreement", "no_accuracy"}
        and "the head has 5 classes and the data 3" in (got["no_accuracy"])
    )
    assert result(five, labels, head_classes=(2, 3, 4))["x"] == 1.0
    assert result(five, labels, head_classes=(3, 2, 4))["x"] == pytest.approx(np.mean(labels == 2))
    with pytest.raises(ValueError, match="names 2 classes, the data has 3"):
        result(five, labels, head_classes=(2, 3))
    with pytest.raises(ValueError, match="names class 5, but the head of 'fake' has 5"):
        result(five, labels, head_classes=(2, 3, 5))


def test_a_head_of_the_class_token_alone_says_nothing_of_the_reconstruction():
    got = result(lambda params, patches, cls: cls, X.max(1).argmax(1))
    assert got["no_reconstructed"] == ALONE and got["x"] == 1.0 and "reconstructed" not in got


def test_patches_only_takes_the_class_token_away():
    both = lambda params, patches, cls: patches.mean(axis=1) + 100 * cls  # the class token decides
    labels = X.max(1).argmax(1)
    got = result(both, labels, mean_token=np.zeros(3, np.float32))
    assert got["x"] == got["reconstructed"] == 1.0
    assert got["patches_only"]["x"] == pytest.approx(np.mean(MEAN.argmax(1) == labels))
    without_blue = np.c_[MEAN[:, :2], np.zeros(40)].argmax(1)
    assert got["patches_only"]["reconstructed"] == pytest.approx(np.mean(without_blue == labels))
