"""Eight devices: the state really is split, and neither the curve nor a checkpoint knows of it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running import on_eight_devices

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    return on_eight_devices(HERE / "eight_devices.py")


@pytest.mark.parametrize("part", ["params", "mu", "nu", "ema"])
def test_each_device_holds_an_eighth_of_the_state(seen: dict[str, Any], part: str):
    assert seen["devices"] == 8
    assert seen["shares"][part] < 1 / 8 + 0.02  # small arrays stay whole


def test_the_batch_is_split_over_replica_and_fsdp_in_the_lowered_module(seen: dict[str, Any]):
    assert any('{"replica", "fsdp"}' in line or "devices=[8,1]" in line for line in seen["constraint"]), seen
    assert seen["divisor"] == [8, 8, 4]


def test_the_state_handed_in_is_donated(seen: dict[str, Any]):
    assert seen["donated"]


def test_the_curve_does_not_depend_on_the_devices(seen: dict[str, Any]):
    np.testing.assert_allclose(seen["losses"], seen["alone"], rtol=1e-5)
    assert len(set(seen["losses"])) == len(seen["losses"])


@pytest.mark.parametrize(("name", "devices"), [("4x2", 8), ("2x4", 8), ("1", 1)])
def test_a_checkpoint_comes_back_bit_for_bit_on_another_mesh(seen: dict[str, Any], name: str, devices: int):
    back = seen["restored"][name]
    assert back["bitwise"] and back["average"] and back["devices"] == devices
    assert back["next"] == pytest.approx(seen["onward"], rel=1e-5)


def test_eight_devices_then_four_then_eight_go_on_with_the_same_data_and_curve(seen: dict[str, Any]):
    whole, parts = seen["whole"], seen["reshaped"]
    assert whole["steps"] == parts["steps"] == list(range(1, 13)) and whole["seen"] == list(range(12))
    np.testing.assert_allclose(parts["losses"], whole["losses"], rtol=1e-5)
    # Taken away at step 4, it goes on from the checkpoint of step 3; at step 8, from that of step 6.
    assert parts["seen"] == [*range(4), *range(3, 8), *range(6, 12)]
