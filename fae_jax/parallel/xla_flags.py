"""What XLA and the C library are told before JAX starts, by chip: beneath whatever the user has set.

TPU flags go into LIBTPU_INIT_ARGS, the others into XLA_FLAGS; both are read once, when JAX meets its devices. A flag
that the installed library does not hold would end the process, so each is looked for in the library first.
"""

from __future__ import annotations

import ctypes
import importlib.util
import mmap
import os
import sys
from collections.abc import Callable, Mapping, MutableMapping
from pathlib import Path
from typing import Any

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
# On-chip memory for a fusion. The compiler then searches twice as long, for the same program in HBM: two per cent off
# the peak, the same traffic (docs/scaling.md)
ON_CHIP = "--xla_tpu_scoped_vmem_limit_kib=98304"
FLAGS: dict[str, tuple[str, ...]] = {
    "v4": _TPU,
    "v5e": _TPU,
    "v5p": _TPU,
    "v6e": (*_TPU, ON_CHIP),
    "gpu": ("--xla_gpu_enable_latency_hiding_scheduler=true",),
    "cpu": (
        # XLA gives products on a CPU to YNNPACK, slower at them than Eigen (docs/performance.md); at sums faster
        "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_REDUCE",
        # XLA's older code for fusions, which compiles sooner and runs faster: the quickstart in 160 s, not 222
        "--xla_cpu_use_fusion_emitters=false",
    ),
}
# From <malloc.h> of the GNU C library: parameter → value
_MALLOC = {
    -8: 1,  # M_ARENA_MAX: the arenas of other threads cannot hold large blocks
    -4: 0,  # M_MMAP_MAX: take large blocks from the heap
    -1: 2**31 - 1,  # M_TRIM_THRESHOLD: keep up to 2 GiB at the heap's top
    -2: 2**26,  # M_TOP_PAD: grow the heap by 64 MiB at a time
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
    """Those flags whose names the library holds, and whose values it does where they are names in capitals.

    A name ends in a null byte where it is a flag; without one, a schema in the library may only keep it from new use.
    """
    with open(library, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:

        def holds(flag: str) -> bool:
            name, _, value = flag.lstrip("-").partition("=")
            words = (f"{name}\0", *([value] if value.isupper() else []))
            return all(text.find(word.encode()) >= 0 for word in words)

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


def jit_once(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """`jax.jit(function, **options)` for a program that runs once: on a CPU compiled with less effort, to slower code
    whose results may differ in their last bit."""
    import jax

    quick = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    return jax.jit(function, compiler_options=quick if jax.default_backend() == "cpu" else None, **options)


def training_options(processor: Path = Path("/proc/cpuinfo")) -> dict[str, str] | None:
    """Compiler options of a training step: on a CPU with AMX its products stay with YNNPACK, unless the user's own
    flags say where they go. There a DiT's step takes 1.75 s so and 2.19 by Eigen, while encoders alone are faster by
    Eigen (docs/performance.md)."""
    flag = FLAGS["cpu"][0]
    try:
        has_amx = "amx_tile" in processor.read_text().split()
    except OSError:
        return None
    if not has_amx or flag not in os.environ.get("XLA_FLAGS", "").split():
        return None
    name, _, libraries = flag.lstrip("-").partition("=")
    return {name: f"{libraries},LIBRARY_FUSION_TYPE_DOT"}


def keep_freed_memory() -> bool:
    """Tells the GNU C library to keep freed memory; returns whether it was told.

    XLA allocates the temporaries of a step as one block. The C library would give it back to the kernel at the step's
    end, which must then map and zero it again: for the quickstart's generator 31,000 page faults and a fifth of the
    processor time of every step (measured on 2 cores; CHANGELOG).

    Call it before JAX is imported, since threads choose their arenas when they start. Nothing happens where there is
    an accelerator (the host then holds no temporaries) or another C library.
    """
    if not sys.platform.startswith("linux") or machine(os.environ) != "cpu" or Path("/dev/kfd").exists():
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return all(mallopt(parameter, value) == 1 for parameter, value in _MALLOC.items())
