"""A GPU that is not here, weighed by a compiler that is: the TPU's, for one v5p chip.

State and batch are the same on both, to the byte. Temporaries are those that the TPU compiler assigns: its fusions
are others and its tiles coarser than a GPU's, so they are an estimate, and nobody has measured yet how good a one.
"""

from __future__ import annotations

from typing import Any

from fae_jax.parallel.chips import CHIPS, Chip
from fae_jax.parallel.topologies import SHAPES

GPUS = {chip.name: chip for chip in CHIPS if chip.name not in SHAPES}
STANDS_IN = "v5p:1x1x1"
SHARE = 0.75  # share of a GPU's memory that JAX takes where XLA_PYTHON_CLIENT_MEM_FRACTION does not say otherwise
METHOD = f"state exact, temporaries estimated by the TPU compiler ({STANDS_IN}); JAX takes {SHARE:.0%} of the memory"


def on_gpu(figures: dict[str, Any], chip: Chip) -> dict[str, Any]:
    """The figures of `fae_jax.compiler.child.ask` for `STANDS_IN`, held against a GPU's memory; says its `method`."""
    memory = int(SHARE * chip.memory)
    return {
        **figures,
        "kind": chip.name,
        "memory": memory,
        "fits": figures["peak"] <= memory,
        "method": METHOD,
    }
