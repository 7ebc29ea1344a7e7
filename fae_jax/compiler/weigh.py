"""One stage's program, compiled for one mesh, as figures per device.

`memory_analysis()` counts holes between buffers twice (5.40 GiB of temporaries where the TPU compiler reserves 4.12),
so the peak is taken from the compiler's own sum in its log: reserved + program + arguments, of what the chip lets
programs use (15.75 GiB of a v5e's 16).
"""

from __future__ import annotations

import dataclasses
import re
import time
from typing import Any

import jax
from jax.sharding import Mesh

from fae_jax.compiler.collectives import collectives
from fae_jax.compiler.programs import Program, lower
from fae_jax.config import check, override
from fae_jax.errors import RunFailed
from fae_jax.parallel.chips import chip_of
from fae_jax.parallel.mesh import make_mesh, sizes_of
from fae_jax.parallel.topologies import Topology
from fae_jax.section import as_dict
from fae_jax.stages.costs import image_flops
from fae_jax.stages.outline import device_memory, per_device
from fae_jax.stages.running import as_drawn

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}
_SIZE = r"([\d.]+)([KMG]?)"
_USED = re.compile(rf"program HBM usage: {_SIZE}B? / {_SIZE}B?")
_TOTAL = re.compile(rf"Total hbm usage >= {_SIZE}B?:")
# When a program is too large: in the log, and in the error
_TOO_LARGE = (
    re.compile(rf"Used {_SIZE} of {_SIZE} hbm", re.IGNORECASE),
    re.compile(rf"HLO temporaries \({_SIZE}B?\) exceeds available HBM \({_SIZE}B?\)"),
)


def topology_devices(topology: Topology) -> list[Any]:
    """The devices of a slice, by the TPU compiler that libtpu brings; none of them is there.

    Raises:
      ValueError: libtpu is not installed, or knows no such slice.
    """
    from jax.experimental import topologies

    options: dict[str, Any] = {}
    if topology.generation == "v4":
        options["chip_config_name"] = "megacore"  # one device a chip
    if topology.chips == 1:
        options["chips_per_host_bounds"] = (1, 1, 1)  # hosts of other slices have four
    try:
        described = topologies.get_topology_desc(platform="tpu", topology_name=topology.name, **options)
    except (ImportError, RuntimeError, NotImplementedError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"topology {topology.name} cannot be compiled for: {reason}") from None
    return list(described.devices)


def own_devices(devices: list[Any], topology: Topology) -> list[Any]:
    """The devices of a slice that is as large as the part of `topology` which one host has.

    A host's programs of its own are compiled for it: the compiler takes only whole slices.
    """
    own = [device for device in devices if device.process_index == devices[0].process_index]
    sides = [max(side) - min(side) + 1 for side in zip(*(device.coords for device in own), strict=True)]
    part = dataclasses.replace(topology, sides=tuple(sides[: len(topology.sides)]))
    return topology_devices(part) if part != topology else devices


def weigh(config: Any, stage: str, topology: Topology | None) -> dict[str, Any]:
    """Compiles a stage's program and says what it takes, per device.

    Args:
      topology: None for the devices that are here.

    Returns:
      JSON values: `stage`, `devices`, `kind`, `mesh`, `batch`, `fits`, `state`, `temporaries`, `peak` and `memory`
      in bytes (`memory` None where the device does not tell; the compiler's log says the last three more exactly, see
      `read_report`), `collectives` {kind: {times, bytes}}, `flops` of a call over all devices, `seconds`
      that lowering and compiling took.

    Raises:
      ValueError: batch or mesh do not fit the devices.
      RunFailed: the compiler fails for another reason than memory.
    """
    devices = topology_devices(topology) if topology else None
    own = own_devices(devices, topology) if topology and devices else None
    if devices is not None and config.compute.kernel == "auto":
        config = check(override(config, [("compute.kernel", "splash")]))  # what auto is on a TPU
    if stage == "sample":
        config = as_drawn(config)
    mesh = make_mesh(**as_dict(config.mesh), devices=devices)
    chip = chip_of(mesh.devices.flat[0].device_kind)
    begun = time.monotonic()
    program = lower(config, stage, mesh, own)
    figures: dict[str, Any] = {
        "stage": stage,
        "devices": mesh.size,
        "kind": chip.name if chip else mesh.devices.flat[0].device_kind,
        "mesh": sizes_of(mesh),
        "batch": program.batch,
        "state": per_device(program.state),
        "memory": chip.memory if chip and topology else device_memory(mesh.devices.flat[0]),
        "flops": program.hosts * program.batch * image_flops(config, stage),
    }
    figures.update(_compiled(program, mesh))
    return {**figures, "seconds": round(time.monotonic() - begun, 1)}


def judge(figures: dict[str, Any]) -> dict[str, Any]:
    """The figures with `fits` false also where the peak is above the memory, and None where that is not known."""
    memory = figures["memory"]
    return {**figures, "fits": figures["fits"] and (None if memory is None else figures["peak"] <= memory)}


def _compiled(program: Program, mesh: Mesh) -> dict[str, Any]:
    try:
        compiled = program.lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        sizes = too_large(str(error))
        if sizes is None:
            raise RunFailed(f"the compiler refuses the program: {' '.join(str(error).split())[:300]}") from None
        temporaries, available = sizes
        return {
            "fits": False,
            "temporaries": temporaries,
            "peak": temporaries + per_device(program.state),
            "memory": available,
            "collectives": {},
        }
    memory = compiled.memory_analysis()
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    traffic = collectives(compiled.as_text(), mesh.size)
    return {
        "fits": True,
        "temporaries": memory.temp_size_in_bytes,
        "peak": held + memory.temp_size_in_bytes + memory.generated_code_size_in_bytes,
        "collectives": {kind: each._asdict() for kind, each in traffic.items()},
    }


def _bytes(number: str, unit: str) -> int:
    return int(float(number) * _UNITS[unit])


def too_large(message: str) -> tuple[int, int] | None:
    """(bytes that temporaries would take, bytes that a chip has), or None where the message says another thing."""
    match = next((each for each in (pattern.search(message) for pattern in _TOO_LARGE) if each), None)
    return (_bytes(match[1], match[2]), _bytes(match[3], match[4])) if match else None


def read_report(log: str) -> dict[str, int]:
    """`temporaries`, `memory` and `peak` in bytes of the last program in a log; empty where it reports none."""
    used, total = _USED.findall(log), _TOTAL.findall(log)
    if not used or not total:
        return {}
    program, program_unit, memory, memory_unit = used[-1]
    return {
        "temporaries": _bytes(program, program_unit),
        "memory": _bytes(memory, memory_unit),
        "peak": _bytes(*total[-1]),
    }
