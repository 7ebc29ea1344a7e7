"""What a generator is told: dropped in the share asked for, asked for by a user, and refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fae_jax.conditions.label import ClassLabel
from fae_jax.conditions.nothing import Nothing


def keys(count: int) -> jax.Array:
    return jax.random.split(jax.random.key(0), count)


def test_labels_are_dropped_in_the_share_asked_for():
    labels = jnp.arange(4000) % 10
    dropped = np.asarray(ClassLabel(classes=10, dropout=0.1).drop(keys(4000), labels))
    gone = dropped == 10
    assert 0.07 < gone.mean() < 0.13
    np.testing.assert_array_equal(dropped[~gone], np.asarray(labels)[~gone])
    assert not (np.asarray(ClassLabel(classes=10, dropout=0.0).drop(keys(4000), labels)) == 10).any()


def test_no_class_is_the_number_of_classes():
    np.testing.assert_array_equal(ClassLabel(classes=7).none(3), [7, 7, 7])
    np.testing.assert_array_equal(ClassLabel(classes=7).of({"label": jnp.arange(3)}), [0, 1, 2])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([-1], "label -1 is not in 0 … 10"),
        ([11], "label 11 is not in 0 … 10"),
        ([], "at least one class"),
        (np.array([3.5]), "labels must be whole numbers, got float64"),
        (None, "draws by class"),
    ],
)
def test_labels_that_are_none_are_refused(labels: list | np.ndarray | None, message: str):
    with pytest.raises(ValueError, match=message):
        ClassLabel(classes=10).request(labels)


def test_nothing_is_told_alike_to_all_and_knows_no_class():
    nothing = Nothing(dropout=0.5, classes=10)
    assert nothing.classes == 0
    for told in (nothing.none(4), nothing.of({"index": jnp.arange(4)}), nothing.request([0] * 4)):
        np.testing.assert_array_equal(told, [0, 0, 0, 0])
    with pytest.raises(ValueError, match="knows no classes"):
        nothing.request([3])
