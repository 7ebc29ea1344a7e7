"""One curve on every mesh, products split over `tensor` included, and a state that is split as the rules say."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jax.sharding import PartitionSpec
from running import on_eight_devices

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent
MESHES = {"1,8,1": 8, "2,4,1": 4, "1,4,2": 8, "2,2,2": 4}  # replica, fsdp, tensor → devices a state is split over
SMALL = 0.06  # share of the state in arrays too small to split


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    return on_eight_devices(HERE / "meshes.py")


@pytest.mark.parametrize("mesh", MESHES)
def test_twenty_steps_on_any_mesh_are_those_on_one_device(seen: dict[str, Any], mesh: str):
    losses = seen["1"]["losses"]
    assert len(set(losses)) == 20 and np.isfinite(losses).all()
    np.testing.assert_allclose(seen[mesh]["losses"], losses, rtol=1e-5)


@pytest.mark.parametrize("part", ["params", "mu", "nu", "ema"])
@pytest.mark.parametrize("mesh", MESHES)
def test_a_device_holds_its_share_and_no_more(seen: dict[str, Any], mesh: str, part: str):
    held = seen[mesh]["held"][part]
    assert 1 / MESHES[mesh] <= held["largest"] / held["total"] < 1 / MESHES[mesh] + SMALL


def test_tensor_splits_what_a_linear_puts_out_and_the_next_one_sums_over(seen: dict[str, Any]):
    assert seen["1,4,2"]["qkv"] == str(PartitionSpec(None, "fsdp", "tensor"))
    assert seen["1,4,2"]["out"] == str(PartitionSpec(None, "tensor", "fsdp"))
    assert "tensor" not in seen["1,8,1"]["qkv"] + seen["1,8,1"]["out"]


@pytest.mark.parametrize("mesh", ["1,4,2", "2,2,2"])
def test_activations_are_constrained_in_the_lowered_program(seen: dict[str, Any], mesh: str):
    text = "\n".join(seen[mesh]["constraints"])
    examples = '{"replica", "fsdp"}' if mesh == "2,2,2" else '"fsdp"}'
    stream = [line for line in text.splitlines() if line.endswith("tensor<16x16x128xf32>")]
    qkv = [line for line in text.splitlines() if line.endswith("tensor<16x16x3x4x32xf32>")]
    assert any(examples in line and "tensor" not in line.split("tensor<")[0] for line in stream), text
    assert any('{"tensor"}' in line for line in qkv), text


def test_gradients_and_their_sums_lie_like_the_parameters(seen: dict[str, Any]):
    kernels = [line for line in seen["2,4,1"]["constraints"] if line.endswith("tensor<2x128x384xf32>")]
    assert any('"fsdp"' in line for line in kernels), seen["2,4,1"]["constraints"]


def test_what_all_of_fsdp_does_not_divide_is_split_over_two_axes(seen: dict[str, Any]):
    split, alone = seen["odd 1,8,1"], seen["odd"]
    assert split["qkv"] == str(PartitionSpec(None, "fsdp_rest", "fsdp"))
    assert split["out"] == str(PartitionSpec(None, "fsdp", "fsdp_rest"))
    np.testing.assert_allclose(split["losses"], alone["losses"], rtol=1e-5)
    assert len(set(alone["losses"])) == 20
    assert split["held"]["params"]["largest"] / split["held"]["params"]["total"] < 1 / 8 + 2 * SMALL
