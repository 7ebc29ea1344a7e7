"""The device mesh `replica × fsdp × tensor`, and batches laid over it.

`replica` copies the state (across slices), `fsdp` shards it, `tensor` splits single products. A batch is split over
`replica` and `fsdp` together. The axes are of type Auto: the compiler chooses what is not said.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXES = ("replica", "fsdp", "tensor")
BATCH_AXES = ("replica", "fsdp")


def make_mesh(replica: int = 1, fsdp: int = -1, tensor: int = 1, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh over `devices`, or all there are; one size may be −1 and takes what the others leave.

    Raises:
      ValueError: the sizes do not multiply to the number of devices.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = [replica, fsdp, tensor]
    if any(size == 0 or size < -1 for size in sizes) or sizes.count(-1) > 1:
        raise ValueError(f"mesh replica={replica} fsdp={fsdp} tensor={tensor}: sizes are positive, one may be -1")
    if -1 in sizes:
        rest = int(np.prod([size for size in sizes if size != -1]))
        sizes[sizes.index(-1)] = len(devices) // rest
    if np.prod(sizes) != len(devices):
        raise ValueError(
            f"mesh replica={replica} fsdp={fsdp} tensor={tensor} does not fit {len(devices)} devices: "
            "their product must be that number"
        )
    return jax.make_mesh(tuple(sizes), AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """The same value on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Examples split over `replica` and `fsdp`."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def batch_divisor(mesh: Mesh) -> int:
    """What the number of examples must be a multiple of."""
    return int(np.prod([mesh.shape[axis] for axis in BATCH_AXES]))


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """This host's share of a batch → global arrays split over the mesh."""
    sharding = batch_sharding(mesh)
    return {name: jax.make_array_from_process_local_data(sharding, value) for name, value in batch.items()}


def put_replicated(tree: Any, mesh: Mesh) -> Any:
    """Host values, the same on every host → arrays on every device."""
    sharding = replicated(mesh)
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, np.asarray(leaf)), tree)
