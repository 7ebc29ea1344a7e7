import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from fae_jax.weights import flatten, hash_tree, load_tree, open_tensors, save_tree, unflatten, write_tensors

TREE = {
    "blocks": {"kernel": np.arange(12, dtype=np.float32).reshape(2, 2, 3), "bias": np.ones(3, ml_dtypes.bfloat16)},
    "scale": jnp.arange(4.0),
}


def test_flatten_and_back():
    flat = flatten(TREE)
    assert list(flat) == ["blocks.kernel", "blocks.bias", "scale"]
    assert unflatten(flat)["blocks"]["bias"] is TREE["blocks"]["bias"]
    with pytest.raises(ValueError, match="'a.b' contains a dot"):
        flatten({"a.b": np.zeros(1)})


def test_tree_and_its_file_have_one_hash(tmp_path):
    save_tree(tmp_path / "model.safetensors", TREE)
    tensors = open_tensors(tmp_path)
    assert tensors.hash() == hash_tree(TREE) == hash_tree(load_tree(tmp_path))
    back = load_tree(tmp_path, TREE)
    assert back["blocks"]["bias"].dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(back["blocks"]["kernel"], TREE["blocks"]["kernel"])


def test_values_that_are_not_finite(tmp_path):
    for bad, dtype in ((np.nan, np.float32), (np.inf, ml_dtypes.bfloat16)):
        write_tensors(tmp_path / "model.safetensors", {"fine": np.zeros(3), "bad": np.array([0, bad], dtype)})
        with pytest.raises(ValueError, match="'bad' holds NaN or infinite"):
            load_tree(tmp_path)


def test_all_differences_in_one_message(tmp_path):
    save_tree(tmp_path / "model.safetensors", {"a": np.zeros(2), "b": np.zeros(3), "c": np.zeros(1)})
    like = {"a": np.zeros(3), "c": np.zeros(1), "d": {"e": np.zeros(1), "f": np.zeros(1)}}
    message = r"2 missing: d.e, d.f; 1 extra: b; 1 misshapen: a \[2\] instead of \[3\]"
    with pytest.raises(ValueError, match=message):
        load_tree(tmp_path, like)


def test_long_lists_are_cut():
    from fae_jax.weights.tree import compare

    with pytest.raises(ValueError, match="40 missing: .* and 28 more"):
        compare("x", {f"t{i}": (1,) for i in range(40)}, {})
