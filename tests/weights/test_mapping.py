import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from fae_jax.weights import mapping, open_tensors, write_tensors
from fae_jax.weights.mapping import KEEP, LINEAR, NameMap, Part, Rule, linear, norm

RNG = np.random.default_rng(0)


def like(**shapes):
    tree = {}
    for name, shape in shapes.items():
        node = tree
        *path, last = name.split("__")
        for key in path:
            node = node.setdefault(key, {})
        node[last] = jax.ShapeDtypeStruct(shape, jnp.float32)
    return tree


def opened(folder, tensors):
    write_tensors(folder / "x.safetensors", tensors)
    return open_tensors(folder / "x.safetensors")


def test_layers_are_stacked_and_parts_lie_side_by_side(tmp_path):
    tensors = {f"layer.{i}.{n}.weight": RNG.standard_normal((3, 4)).astype(np.float32) for i in (0, 1) for n in "qk"}
    names = NameMap(tuple(linear("qk", "layer.{layer}.q", "layer.{layer}.k", bias=False)))
    params = mapping.load("x", names, opened(tmp_path, tensors), like(qk__kernel=(2, 4, 6)))
    kernel = np.asarray(params["qk"]["kernel"])
    for i in (0, 1):
        np.testing.assert_array_equal(kernel[i, :, :3], tensors[f"layer.{i}.q.weight"].T)
        np.testing.assert_array_equal(kernel[i, :, 3:], tensors[f"layer.{i}.k.weight"].T)


def test_prefix_is_found_and_others_tensors_are_left_alone(tmp_path):
    tensors = {"vit.n.weight": np.arange(3, dtype=np.float32), "vit.n.bias": np.zeros(3, np.float32)}
    tensors |= {"decoder.w": np.zeros(9, np.float32), "head.weight": np.ones((2, 3), np.float32)}
    rules = (*norm("n", "n"), *linear("head", "/head", bias=False))
    names = NameMap(rules, prefixes=("", "vit."), ignored=r"^decoder\.")
    shapes = like(n__scale=(3,), n__bias=(3,), head__kernel=(3, 2))
    params = mapping.load("x", names, opened(tmp_path, tensors), shapes)
    np.testing.assert_array_equal(params["n"]["scale"], [0, 1, 2])
    with pytest.raises(ValueError, match="1 extra: other.w"):
        mapping.load("x", names, opened(tmp_path, {**tensors, "other.w": np.zeros(1, np.float32)}), shapes)


def test_a_tensor_that_may_be_absent(tmp_path):
    names = NameMap((Rule("b", (Part("q.bias"), Part("k.bias", absent=0.0))),))
    one, two = np.ones(2, np.float32), np.full(2, 5, np.float32)
    params = mapping.load("x", names, opened(tmp_path, {"q.bias": one}), like(b=(4,)))
    np.testing.assert_array_equal(params["b"], [1, 1, 0, 0])
    params = mapping.load("x", names, opened(tmp_path, {"q.bias": one, "k.bias": two}), like(b=(4,)))
    np.testing.assert_array_equal(params["b"], [1, 1, 5, 5])
    with pytest.raises(ValueError, match=r"misshapen: k.bias \[3\] instead of \[2\]"):
        mapping.load("x", names, opened(tmp_path, {"q.bias": one, "k.bias": np.ones(3, np.float32)}), like(b=(4,)))


def test_convolution_reads_patches_row_by_row():
    from fae_jax.nn.embeddings import patchify

    kernel, image = RNG.standard_normal((5, 3, 2, 2)), RNG.standard_normal((1, 2, 2, 3)).astype(np.float32)
    ours = mapping.convolution(2, 3).read(kernel)
    want = np.einsum("oyxc,yxc->o", kernel.transpose(0, 2, 3, 1), image[0])
    np.testing.assert_allclose(patchify(jnp.asarray(image), 2)[0, 0] @ ours, want, rtol=1e-5)
    assert mapping.convolution(2, 3).shape_in_file((12, 5)) == (5, 3, 2, 2)


def test_rotary_halves_turn_the_same_pairs():
    """Rotating (i, i + e/2) there is rotating (2i, 2i + 1) here, so scores agree."""
    heads, width = 2, 8
    angle = RNG.uniform(0, 6, width // 2)
    weight, x = RNG.standard_normal((heads * width, 5)), RNG.standard_normal(5)

    def halves(v):
        a, b = v[: width // 2], v[width // 2 :]
        return np.concatenate([a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)])

    def pairs(v):
        a, b = v[0::2], v[1::2]
        return np.stack([a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)], 1).reshape(-1)

    theirs = np.stack([halves(head) for head in (weight @ x).reshape(heads, width)])
    ours = np.stack([pairs(head) for head in (x @ mapping.rotary_halves(heads).read(weight)).reshape(heads, width)])
    np.testing.assert_allclose(np.sort(theirs, axis=1), np.sort(ours, axis=1), rtol=1e-6)
    np.testing.assert_allclose(theirs[:, : width // 2], ours[:, 0::2], rtol=1e-6)


def test_leading_axes():
    assert mapping.leading(2).shape_in_file((3, 4)) == (1, 1, 3, 4)
    assert mapping.leading(2).read(np.zeros((1, 1, 3, 4))).shape == (3, 4)
    assert mapping.leading(-1).shape_in_file((1, 4)) == (4,)
    assert mapping.leading(-1).read(np.zeros(4)).shape == (1, 4)
    assert LINEAR.shape_in_file((2, 3)) == (3, 2) and KEEP.shape_in_file((2, 3)) == (2, 3)


def test_dtypes_are_converted(tmp_path):
    tensors = {"w": np.array([1.5, 2.25], ml_dtypes.bfloat16)}
    names = NameMap((Rule("w", (Part("w"),)),))
    for dtype in (np.float32, ml_dtypes.bfloat16, np.float16):
        params = mapping.load("x", names, opened(tmp_path, tensors), like(w=(2,)), dtype=dtype)
        assert params["w"].dtype == dtype
        np.testing.assert_array_equal(np.asarray(params["w"], np.float32), [1.5, 2.25])


def test_a_map_must_cover_the_network(tmp_path):
    names = NameMap((Rule("w", (Part("w"),)),))
    with pytest.raises(ValueError, match="disagree on v"):
        mapping.load("x", names, opened(tmp_path, {"w": np.zeros(2, np.float32)}), like(w=(2,), v=(2,)))


def test_damaged_values_name_the_tensor(tmp_path):
    names = NameMap((Rule("w", (Part("a.{layer}"),)),))
    tensors = {"a.0": np.zeros(2, np.float32), "a.1": np.array([0, np.inf], np.float32)}
    with pytest.raises(ValueError, match="'a.1' holds NaN or infinite"):
        mapping.load("x", names, opened(tmp_path, tensors), like(w=(2, 2)))
