"""What a chip can do and hold, by its generation.

TPU figures: Google's Cloud TPU pages, per chip. GPU figures: NVIDIA's data sheets, dense, SXM boards. Peaks are of
bfloat16 products with float32 sums. One device of JAX is a chip, on v4 and v5p too (two cores that work as one).
"""

from __future__ import annotations

import dataclasses
import re

GIB = 2**30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """One generation.

    Attributes:
      name: as `fae compile` calls it.
      kinds: what `jax.Device.device_kind` is, or a word of it, in lower case.
      teraflops: bfloat16 peak, 10¹² FLOP/s.
      memory: bytes of HBM.
    """

    name: str
    kinds: tuple[str, ...]
    teraflops: float
    memory: int


CHIPS = (
    Chip(name="v4", kinds=("tpu v4",), teraflops=275.0, memory=32 * GIB),
    Chip(name="v5e", kinds=("tpu v5 lite", "tpu v5e"), teraflops=197.0, memory=16 * GIB),
    Chip(name="v5p", kinds=("tpu v5p", "tpu v5"), teraflops=459.0, memory=95 * GIB),
    Chip(name="v6e", kinds=("tpu v6 lite", "tpu v6e"), teraflops=918.0, memory=32 * GIB),
    Chip(name="h200", kinds=("h200",), teraflops=989.0, memory=141 * 10**9),
    Chip(name="h100", kinds=("h100",), teraflops=989.0, memory=80 * 10**9),
    Chip(name="a100-40", kinds=("40gb",), teraflops=312.0, memory=40 * 10**9),  # no other board here has as much
    Chip(name="a100-80", kinds=("a100",), teraflops=312.0, memory=80 * 10**9),
    Chip(name="l4", kinds=("l4",), teraflops=121.0, memory=24 * 10**9),
    Chip(name="rtx4090", kinds=("4090",), teraflops=165.2, memory=24 * 10**9),
)


def chip_of(device_kind: str) -> Chip | None:
    """The chip that a `jax.Device.device_kind` is of, or None where it is not in the table (a CPU, say)."""
    # A GPU's board names hold its kind as a word of its own: "NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB".
    kind = device_kind.lower()
    words = (kind,) if kind.startswith("tpu") else re.findall(r"\w+", kind)
    return next((chip for chip in CHIPS if set(chip.kinds) & set(words)), None)


def peak_flops(device_kind: str) -> float | None:
    """bfloat16 FLOP/s of a device, or None where its chip is not in the table."""
    chip = chip_of(device_kind)
    return chip.teraflops * 1e12 if chip else None
