"""Several hosts become one run: detected by JAX from the cluster's environment, or named by hand. And compiled
programs kept from run to run: a restart on a pod then starts in seconds instead of minutes.

By hand, in the environment of every host:

    FAE_COORDINATOR=HOST:PORT    where host 0 can be reached, any free port
    FAE_HOSTS=4                  how many there are
    FAE_HOST=2                   which one this is, from 0

JAX finds TPU pods (and slices of several), Slurm steps, Open MPI and Kubernetes jobs by itself. One process per
host; under Slurm and Open MPI one per task, and the tasks of a node share out its GPUs (`local_devices`).
"""

from __future__ import annotations

import importlib.util
import os
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from fae_jax.errors import RunFailed
from fae_jax.parallel.ending import end_now

BY_HAND = ("FAE_COORDINATOR", "FAE_HOSTS", "FAE_HOST")
START_LIMIT = 300  # seconds that hosts wait for each other at the start
# A backstop behind `host_watch`, which is faster and names the host; JAX's own ends a process with a stack.
HEARTBEAT = 120


def by_hand(environment: Mapping[str, str]) -> dict[str, Any] | None:
    """Arguments of `jax.distributed.initialize` from the three variables; None where none is set.

    Raises:
      ValueError: one is missing or invalid.
    """
    given = {name: environment[name] for name in BY_HAND if environment.get(name)}
    if not given:
        return None
    missing = [name for name in BY_HAND if name not in given]
    if missing:
        raise ValueError(f"{', '.join(given)} set without {', '.join(missing)}; set all of {', '.join(BY_HAND)}")
    host, colon, port = given["FAE_COORDINATOR"].rpartition(":")
    if not (host and colon and port.isdigit()):
        raise ValueError(f"FAE_COORDINATOR={given['FAE_COORDINATOR']!r} must be HOST:PORT, the address of host 0")
    if not (given["FAE_HOSTS"].isdigit() and given["FAE_HOST"].isdigit()):
        raise ValueError(f"FAE_HOSTS={given['FAE_HOSTS']!r} and FAE_HOST={given['FAE_HOST']!r} must be whole numbers")
    hosts, number = int(given["FAE_HOSTS"]), int(given["FAE_HOST"])
    if not 0 <= number < hosts:
        raise ValueError(f"FAE_HOST={number} must be from 0 to {hosts - 1}, since FAE_HOSTS={hosts}")
    return {
        "coordinator_address": given["FAE_COORDINATOR"],
        "num_processes": hosts,
        "process_id": number,
        "cluster_detection_method": "deactivate",
    }


def cluster(environment: Mapping[str, str], devices: Path = Path("/dev")) -> str | None:
    """The kind of cluster that JAX should find itself in, or None: a process of its own.

    JAX's detection asks servers on some of them, so it is begun only where there is a sign of several hosts.
    """

    def several(name: str) -> bool:
        value = environment.get(name, "")
        return value.isdigit() and int(value) > 1

    if environment.get("JAX_COORDINATOR_ADDRESS"):
        return "JAX_COORDINATOR_ADDRESS"
    if several("SLURM_NTASKS") and "SLURM_STEP_NODELIST" in environment and "SLURM_PROCID" in environment:
        return "Slurm step"
    if several("OMPI_COMM_WORLD_SIZE"):
        return "Open MPI"
    if several("MEGASCALE_NUM_SLICES") or "," in environment.get("TPU_WORKER_HOSTNAMES", ""):
        return "TPU pod"
    if "KUBERNETES_SERVICE_HOST" in environment and "JOB_COMPLETION_INDEX" in environment:
        return "Kubernetes job"
    chips = [*devices.glob("accel[0-9]*"), *devices.glob("vfio/[0-9]*")]
    if chips and importlib.util.find_spec("libtpu") and not environment.get("TPU_SKIP_MDS_QUERY"):
        return "TPU machine"
    return None


def _tasks_per_node(environment: Mapping[str, str]) -> int:
    """How many tasks the step has on this node: its place in Slurm's "8(x2),4"."""
    groups = re.findall(r"(\d+)(?:\(x(\d+)\))?", environment.get("SLURM_STEP_TASKS_PER_NODE", ""))
    nodes = [int(tasks) for tasks, times in groups for _ in range(int(times or 1))]
    node = int(environment.get("SLURM_NODEID", "0"))
    return nodes[node] if node < len(nodes) else 1


def local_devices(environment: Mapping[str, str], devices: Path = Path("/dev")) -> list[int] | None:
    """Which of the GPUs that this process sees are its own, where a launcher starts several tasks on a node: all,
    where it sees no others'; else its share in order. JAX by itself takes the one of the task's number, seen or not.

    Returns None where there are none, or where no such launcher is at work.

    Raises:
      ValueError: the tasks cannot share out the GPUs evenly.
    """
    if environment.get("SLURM_LOCALID"):
        number, tasks = int(environment["SLURM_LOCALID"]), _tasks_per_node(environment)
    elif environment.get("OMPI_COMM_WORLD_LOCAL_RANK"):
        number = int(environment["OMPI_COMM_WORLD_LOCAL_RANK"])
        tasks = int(environment.get("OMPI_COMM_WORLD_LOCAL_SIZE", "1"))
    else:
        return None
    chosen = environment.get("CUDA_VISIBLE_DEVICES")
    ids = devices.glob("nvidia[0-9]*") if chosen is None else filter(None, chosen.split(","))
    seen = len([each for each in ids if each not in ("-1", "NoDevFiles")])
    here = environment.get("SLURM_GPUS_ON_NODE", "")
    if seen == 0:
        return None
    if seen < (int(here) if here.isdigit() else tasks):  # the others' are hidden from it
        return list(range(seen))
    if seen % tasks:
        raise ValueError(
            f"{tasks} tasks on this node cannot share out its {seen} GPU(s) evenly; ask for as many tasks as GPUs "
            "(--ntasks-per-node), or for one"
        )
    each = seen // tasks
    return list(range(number * each, (number + 1) * each))


def join_hosts(environment: Mapping[str, str] | None = None, limit: int = START_LIMIT) -> None:
    """Makes this process one of its run's hosts; does nothing where it is the only one. Before JAX computes.

    Raises:
      ValueError: the variables set by hand are invalid, or see `local_devices`.
      RunFailed: the hosts did not find each other.
    """
    environment = os.environ if environment is None else environment
    arguments = by_hand(environment)
    kind = "the environment's FAE_COORDINATOR" if arguments else cluster(environment)
    if kind is None or jax.distributed.is_initialized():
        return
    own = None if arguments or environment.get("JAX_LOCAL_DEVICE_IDS") else local_devices(environment)
    where = f" ({arguments['coordinator_address']})" if arguments else ""
    failed = f"the hosts of this run did not find each other by {kind}{where}"
    remedy = "check that every host runs the same command and can reach host 0"
    # JAX ends a process whose wait is over with a stack and no exception: this is sooner, and says what is missing.
    timer = threading.Timer(limit, end_now, [f"{failed} in {limit} s; {remedy}"])
    timer.daemon = True
    timer.start()
    try:
        jax.distributed.initialize(
            **(arguments or {"local_device_ids": own}),
            initialization_timeout=limit + 60,
            heartbeat_timeout_seconds=HEARTBEAT,
            shutdown_timeout_seconds=60,
        )
    except Exception as error:
        raise RunFailed(f"{failed}: {' '.join(str(error).split())[:200]}; {remedy}") from error
    finally:
        timer.cancel()


def cache_folder(setting: str, platform: str) -> str | None:
    """Where compiled programs are kept: a path or URL, or None for nowhere.

    Args:
      setting: `compute.compilation_cache`: off, auto, or a path. auto is the user's cache folder on accelerators, and
        nowhere on a CPU, whose programs compile in seconds and are bound to the very processor.
      platform: JAX's.
    """
    if setting == "off" or (setting == "auto" and platform == "cpu"):
        return None
    if setting != "auto":
        return setting
    return str(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fae_jax" / "compiled")


def keep_compiled(setting: str) -> str | None:
    """Turns JAX's persistent cache on as `cache_folder` says; one that the user chose by JAX's own setting stays.
    Returns where it is."""
    chosen = jax.config.values["jax_compilation_cache_dir"]
    if chosen:
        return chosen
    folder = cache_folder(setting, jax.default_backend())
    if folder:
        jax.config.update("jax_compilation_cache_dir", folder)
    return folder
