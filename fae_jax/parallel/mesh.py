"""The device mesh `replica × fsdp × tensor`, and batches laid over it.

`replica` copies the state (across slices), `fsdp` shards it, `tensor` splits single products. A batch is split over
`replica` and `fsdp` together. The axes are of type Auto: the compiler chooses what is left open.

Networks' widths are multiples of 128 more often than of 256. Above 128 devices `fsdp` is therefore two axes of the
mesh, 128 and the rest, which may lie on one axis of an array or on two (`fae_jax.parallel.rules`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from fae_jax.section import option

AXES = ("replica", "fsdp", "tensor")
FSDP_AXES = ("fsdp", "fsdp_rest")  # the second above `FSDP_FIRST` devices alone
FSDP_FIRST = 128
BATCH_AXES = ("replica", *FSDP_AXES)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshSection:
    """Sizes of the mesh's axes."""

    operational: ClassVar[bool] = True
    replica: int = option(1, "copies of the state, across slices")
    fsdp: int = option(-1, "devices the state is sharded over; −1 = all that are left")
    tensor: int = option(1, "devices one matrix product is split over")


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
    mesh = jax.make_mesh(tuple(sizes), AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)
    fsdp = mesh.shape["fsdp"]
    if fsdp <= FSDP_FIRST or fsdp % FSDP_FIRST:
        return mesh
    split = mesh.devices.reshape(sizes[0], FSDP_FIRST, fsdp // FSDP_FIRST, sizes[2])
    return Mesh(split, ("replica", *FSDP_AXES, "tensor"), axis_types=(AxisType.Auto,) * 4)


def present(mesh: Mesh | AbstractMesh, axes: tuple[str, ...]) -> tuple[str, ...]:
    """Those of `axes` that the mesh has."""
    return tuple(axis for axis in axes if axis in mesh.shape)


def sizes_of(mesh: Mesh | AbstractMesh) -> dict[str, int]:
    """Sizes as `make_mesh` takes them."""
    fsdp = int(np.prod([mesh.shape[axis] for axis in present(mesh, FSDP_AXES)]))
    return {"replica": mesh.shape["replica"], "fsdp": fsdp, "tensor": mesh.shape["tensor"]}


def replicated(mesh: Mesh) -> NamedSharding:
    """The same value on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Examples split over `replica` and `fsdp`."""
    return NamedSharding(mesh, PartitionSpec(present(mesh, BATCH_AXES)))


def batch_divisor(mesh: Mesh | AbstractMesh) -> int:
    """What the number of examples must be a multiple of."""
    return int(np.prod([mesh.shape[axis] for axis in present(mesh, BATCH_AXES)]))


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """This host's share of a batch → global arrays split over the mesh."""
    sharding = batch_sharding(mesh)
    return {name: jax.make_array_from_process_local_data(sharding, value) for name, value in batch.items()}
