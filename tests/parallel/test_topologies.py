"""Names of slices: what they mean, and what is nearest to one that is none."""

import pytest

from fae_jax.parallel.topologies import SHAPES, parse_topology, slices


@pytest.mark.parametrize(
    ("name", "compiler", "chips"),
    [
        ("v4-16", "v4:2x2x2", 8),  # numbers count cores here
        ("v5p-16", "v5p:2x2x2", 8),
        ("v5e-16", "v5e:4x4", 16),  # and chips here
        ("v6e-8", "v6e:2x4", 8),
        ("V5E:16x16", "v5e:16x16", 256),
        ("v5p:4x4x4", "v5p:4x4x4", 64),
    ],
)
def test_both_ways_of_naming(name: str, compiler: str, chips: int):
    topology = parse_topology(name)
    assert (topology.name, topology.chips) == (compiler, chips)
    assert parse_topology(topology.slice_name).chips == chips


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v5e-17", r"not a slice; the nearest is v5e-16 \(v5e:4x4\)"),
        ("v4-1000", r"the nearest is v4-1024 .*TensorCores on v4"),
        ("v5e:3x5", r"'v5e:3x5' is not a slice; the nearest is v5e-16 \(v5e:4x4\)"),
        ("v4:4x4", r"not a slice; the nearest is v4-32 \(v4:2x2x4\)"),
        ("v7-16", r"unknown; did you mean 'v"),
        ("h100", r"topology 'h100' is unknown; did you mean"),
    ],
)
def test_names_that_are_none(name: str, message: str):
    with pytest.raises(ValueError, match=message) as caught:
        parse_topology(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("generation", SHAPES)
def test_slices_grow_and_can_be_asked_for_by_name(generation: str):
    chips = [each.chips for each in slices(generation)]
    assert chips == sorted(chips) and len(set(chips)) == len(chips)
    assert [parse_topology(each.slice_name) for each in slices(generation)] == slices(generation)
