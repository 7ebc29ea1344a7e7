"""Which chip a device is, by what JAX calls it."""

import pytest

from fae_jax.parallel.chips import CHIPS, chip_of, peak_flops


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("TPU v4", "v4"),
        ("TPU v5 lite", "v5e"),
        ("TPU v5", "v5p"),
        ("TPU v5p", "v5p"),
        ("TPU v6 lite", "v6e"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA A100-SXM4-80GB", "a100-80"),
        ("NVIDIA A100-PCIE-40GB", "a100-40"),
        ("NVIDIA GeForce RTX 4090", "rtx4090"),
        ("NVIDIA L4", "l4"),
    ],
)
def test_devices_are_known_by_jaxs_name(kind: str, name: str):
    assert chip_of(kind).name == name


@pytest.mark.parametrize("kind", ["cpu", "TPU v99", "NVIDIA L40S", ""])
def test_what_is_not_in_the_table_has_no_peak(kind: str):
    assert chip_of(kind) is None and peak_flops(kind) is None


def test_names_are_unique_and_peaks_are_in_flops():
    assert len({chip.name for chip in CHIPS}) == len(CHIPS)
    assert peak_flops("TPU v5 lite") == 197e12
