"""What XLA is told at start-up, by chip: one table, beneath whatever the user has set.

TPU flags go into LIBTPU_INIT_ARGS, the others into XLA_FLAGS; both are read once, when JAX meets its devices. A flag
that the installed library does not hold would end the process, so each is looked for in the library first.
"""

from __future__ import annotations

import importlib.util
import mmap
import os
from collections.abc import Mapping, MutableMapping
from pathlib import Path

# Overlap of collectives with products, which FSDP lives on
_TPU = (
    "--xla_enable_async_all_gather=true",
    "--xla_enable_async_collective_permute=true",
    "--xla_tpu_enable_async_collective_fusion=true",
    "--xla_tpu_enable_async_collective_fusion_fuse_all_gather=true",
    "--xla_tpu_enable_async_collective_fusion_multiple_steps=true",
    "--xla_tpu_overlap_compute_collective_tc=true",
    # Small shards are gathered, not summed with zeros, which sends twice as much (docs/scaling.md)
    "--xla_tpu_prefer_async_allgather_to_allreduce=true",
)
_GPU = ("--xla_gpu_enable_latency_hiding_scheduler=true",)
# XLA gives products on a CPU to YNNPACK, slower at them than Eigen (docs/performance.md); at sums it is faster
_CPU = ("--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_REDUCE",)
# On-chip memory for a fusion. The compiler then searches twice as long, for the same program in HBM: two per cent off
# the peak, the same traffic (docs/scaling.md)
ON_CHIP = "--xla_tpu_scoped_vmem_limit_kib=98304"
FLAGS: dict[str, tuple[str, ...]] = {
    "v4": _TPU,
    "v5e": _TPU,
    "v5p": _TPU,
    "v6e": (*_TPU, ON_CHIP),
    "gpu": _GPU,
    "cpu": _CPU,
}
# What a TPU machine calls itself in TPU_ACCELERATOR_TYPE → generation
_TYPES = {"v4": "v4", "v5litepod": "v5e", "v5e": "v5e", "v5p": "v5p", "v6e": "v6e"}


def machine(environment: Mapping[str, str], devices: Path = Path("/dev")) -> str | None:
    """The row of `FLAGS` for this machine, by what can be seen without JAX; None for an unknown TPU."""
    kind = environment.get("TPU_ACCELERATOR_TYPE", "").split("-")[0].lower()
    if kind:
        return _TYPES.get(kind)
    if any(devices.glob("accel[0-9]*")) or any(devices.glob("vfio/[0-9]*")):  # a TPU that does not say which
        return None
    return "gpu" if any(devices.glob("nvidia[0-9]*")) else "cpu"


def known(flags: tuple[str, ...], library: Path) -> tuple[str, ...]:
    """Those flags whose names the library holds, and whose values it does where they are names in capitals."""
    with open(library, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:

        def holds(flag: str) -> bool:
            name, _, value = flag.lstrip("-").partition("=")
            return all(text.find(word.encode()) >= 0 for word in (name, *([value] if value.isupper() else [])))

        return tuple(flag for flag in flags if holds(flag))


def _library(row: str) -> Path | None:
    """The file that reads a row's flags."""
    own = {"gpu": ("jax_plugins", "xla_cuda*/xla_cuda_plugin.so"), "cpu": ("jaxlib", "libjax_common.so")}
    package, pattern = own.get(row, ("libtpu", "libtpu.so"))
    spec = importlib.util.find_spec(package)
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()] if spec else []
    return next((file for folder in folders for file in folder.glob(pattern)), None)


def set_flags(
    environment: MutableMapping[str, str] | None = None, row: str | None = None, leave_out: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """Adds this machine's flags to the environment; call it before JAX is used. Returns those that were added.

    Args:
      environment: the process's, where it is None.
      row: a key of `FLAGS`; None for what `machine` returns.
      leave_out: flags of that row to leave out.
    """
    environment = os.environ if environment is None else environment
    row = row or machine(environment)
    library = _library(row) if row else None
    if row is None or library is None:
        return ()
    name = "XLA_FLAGS" if row in ("gpu", "cpu") else "LIBTPU_INIT_ARGS"
    own = environment.get(name, "")
    names = {word.lstrip("-").partition("=")[0] for word in own.split()}
    flags = (flag for flag in FLAGS[row] if flag not in leave_out)
    free = tuple(flag for flag in flags if flag.lstrip("-").partition("=")[0] not in names)
    added = known(free, library)
    if added:
        environment[name] = " ".join([*added, *own.split()])
    return added
