"""Meshes that fit the devices, those that do not, and where the rules put an array."""

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from fae_jax.parallel.mesh import (
    AXES,
    BATCH_AXES,
    FSDP_AXES,
    batch_divisor,
    make_mesh,
    present,
    put_batch,
    sizes_of,
)
from fae_jax.parallel.rules import RULES, path_name, shardings

EIGHT = AbstractMesh((1, 8, 1), AXES)


def place(name: str, shape: tuple[int, ...], mesh: AbstractMesh, rules: tuple[tuple[str, str], ...]) -> PartitionSpec:
    return shardings({name: jax.ShapeDtypeStruct(shape, np.float32)}, mesh, rules)[name].spec


def test_all_devices_are_used_and_minus_one_takes_the_rest():
    mesh = make_mesh()
    assert mesh.axis_names == AXES and mesh.size == len(jax.devices())
    assert make_mesh(fsdp=1, tensor=-1).shape["tensor"] == len(jax.devices())


@pytest.mark.parametrize("sizes", [(0, -1, 1), (1, 0, 1), (1, -2, 1), (-1, -1, 1)])
def test_sizes_that_mean_nothing(sizes: tuple[int, int, int]):
    with pytest.raises(ValueError, match="sizes are positive, one may be -1"):
        make_mesh(*sizes)


@pytest.mark.parametrize("sizes", [(3, -1, 1), (1, 3, 1), (1, 1, 5), (64, -1, 64)])
def test_sizes_that_do_not_fit(sizes: tuple[int, int, int]):
    if len(jax.devices()) != 1:
        pytest.skip("written for one device")
    with pytest.raises(ValueError, match=r"does not fit 1 devices: their product must be that number"):
        make_mesh(*sizes)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((256, 128), PartitionSpec("fsdp", None)),
        ((128, 256), PartitionSpec(None, "fsdp")),
        ((4, 100, 1000), PartitionSpec(None, None, "fsdp")),  # the longest axis of those that divide
        ((1001, 64), PartitionSpec(None, "fsdp")),  # the longest does not divide by 8
        ((1001, 333), PartitionSpec()),  # none does
        ((64, 64), PartitionSpec()),  # too small
        ((), PartitionSpec()),
    ],
)
def test_the_longest_axis_that_divides_is_split(shape: tuple[int, ...], expected: PartitionSpec):
    assert place("a/kernel", shape, EIGHT, RULES) == expected


LARGE = AbstractMesh((1, 128, 2, 1), ("replica", *FSDP_AXES, "tensor"))


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("a/kernel", (28, 1152, 3072), PartitionSpec(None, None, FSDP_AXES)),  # 256 divides 3,072
        ("qkv/kernel", (28, 1152, 3456), PartitionSpec(None, "fsdp_rest", "fsdp")),  # and neither 1,152 nor 3,456
        ("out/kernel", (28, 1152, 1152), PartitionSpec(None, "fsdp", "fsdp_rest")),
        ("a/kernel", (28, 1001, 384), PartitionSpec("fsdp_rest", None, "fsdp")),
        ("a/kernel", (1001, 1001), PartitionSpec()),
    ],
)
def test_above_128_devices_two_axes_share_what_one_does_not_divide(
    name: str, shape: tuple[int, ...], expected: PartitionSpec
):
    assert place(name, shape, LARGE, RULES) == expected


def test_a_mesh_of_two_fsdp_axes_counts_as_one():
    assert present(LARGE, BATCH_AXES) == BATCH_AXES and present(EIGHT, BATCH_AXES) == ("replica", "fsdp")
    assert batch_divisor(LARGE) == 256 and sizes_of(LARGE) == {"replica": 1, "fsdp": 256, "tensor": 1}


def test_the_first_rule_that_matches_counts_and_one_device_splits_nothing():
    rules = ((r"head/", "replicate"), (r".*", "fsdp"))
    assert place("dit/head/kernel", (256, 256), EIGHT, rules) == PartitionSpec()
    assert place("dit/blocks/kernel", (256, 256), EIGHT, rules) == PartitionSpec("fsdp", None)
    assert place("a", (256, 256), AbstractMesh((8, 1, 1), AXES), RULES) == PartitionSpec()


def test_paths_are_spelt_with_keys_names_and_places():
    tree = {"players": [{"mu": np.zeros(1)}]}
    (path, _), *_ = jax.tree_util.tree_leaves_with_path(tree)
    assert path_name(path) == "players/0/mu"
    assert jax.tree.structure(shardings(tree, make_mesh())) == jax.tree.structure(tree)


def test_batches_keep_their_values():
    mesh, batch = make_mesh(), {"image": np.arange(24, dtype=np.uint8).reshape(8, 3)}
    put = put_batch(batch, mesh)["image"]
    np.testing.assert_array_equal(put, batch["image"])
    assert put.sharding.spec == PartitionSpec(("replica", "fsdp"))
