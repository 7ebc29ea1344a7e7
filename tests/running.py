"""Running `python -m fae_jax` as people do: a process of its own. Compiled programs are shared between them."""

import dataclasses
import hashlib
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import jaxlib
import numpy as np

from fae_jax.parallel.xla_flags import known

ROOT = Path(__file__).parents[1]
TINY = Path(__file__).parent / "tiny.py"
TRAINED = ("encoder", "features", "pixels", "finetune", "generator")
# Tests compile far more than they compute: the least effort for each program. With XLA's older emitters of fusions a
# transformer's training step compiles in a fifth of the time.
QUICK = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
    *known(
        ("--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1"),
        Path(jaxlib.__file__).with_name("libjax_common.so"),
    ),
)


def environment(**more: str) -> dict[str, str]:
    """Of a process on the CPU that compiles quickly and reuses what others compiled."""
    kept = {name: value for name, value in os.environ.items() if name not in ("FAE_TRACEBACK", "XLA_FLAGS")}
    own = {
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "",
        "XLA_FLAGS": " ".join(QUICK),
        "JAX_COMPILATION_CACHE_DIR": os.environ["FAE_COMPILED"],
        "JAX_COMPILATION_CACHE_MAX_SIZE": str(2**31),  # with a limit it is locked while an entry is written
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
    }
    return {**kept, **own, **more}


def start(*words: object, **options: Any) -> subprocess.Popen:
    """Begins `fae WORDS`."""
    command = [sys.executable, "-m", "fae_jax", *map(str, words)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, **{"cwd": ROOT, "env": environment(), **pipes, **options})


def fae(*words: object, code: int = 0, **options: Any) -> tuple[str, str]:
    """`fae WORDS` to its end; (standard output, standard error)."""
    process = start(*words, **options)
    out, err = process.communicate(timeout=500)
    assert process.returncode == code, f"fae {' '.join(map(str, words))} → {process.returncode}\n{out}\n{err}"
    return out, err


def forked(*words: object, hosts: int = 1, devices: int = 1) -> list[Any]:
    """Begins `fae WORDS`, silent, as that many hosts of so many devices each: processes forked from one that has read
    the program."""
    context: Any = multiprocessing.get_context("forkserver")
    read = ("commands.train", "data.loader", "stages.generator", "stages.pixels", "stages.training")
    context.set_forkserver_preload([*(f"fae_jax.{name}" for name in read), "tests.every_section"])
    more: dict[str, str] = {}
    if hosts * devices > 1:
        more["XLA_FLAGS"] = " ".join((f"--xla_force_host_platform_device_count={devices}", *QUICK))
    if hosts > 1:
        with socket.create_server(("127.0.0.1", 0)) as free:
            more |= {"FAE_COORDINATOR": f"127.0.0.1:{free.getsockname()[1]}", "FAE_HOSTS": str(hosts)}
    processes = []
    with mock.patch.dict(os.environ, environment(), clear=True):
        for host in range(hosts):
            own = {**more, **({"FAE_HOST": str(host)} if hosts > 1 else {})}
            processes.append(context.Process(target=_quietly, args=([*map(str, words)], own)))
            processes[-1].start()
    return processes


def quickly(*words: object) -> None:
    """`fae WORDS` to its end, forked; where it fails, once more, to say why."""
    (process,) = forked(*words)
    process.join()
    if process.exitcode != 0:
        fae(*words)
        raise AssertionError(f"fae {' '.join(map(str, words))}: {process.exitcode} when forked")


def killed(*words: object, rows: Path, least: int, delay: float, hosts: int = 1, devices: int = 1) -> int:
    """`forked`, all killed `delay` seconds after line `least` of the file `rows` was written. How the first ended: 0
    where the kill came too late."""
    begun, processes = time.time(), forked(*words, hosts=hosts, devices=devices)
    while processes[0].is_alive() and not (lines(rows) >= least and rows.stat().st_mtime > begun):
        time.sleep(0.001)
    time.sleep(delay)
    for process in processes:
        process.kill()
    for process in processes:
        process.join()
    return processes[0].exitcode


def _quietly(words: list[str], more: dict[str, str]) -> None:
    os.environ.update(more)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(nowhere, number)
    from fae_jax.cli.program import main
    from tests.every_section import read_again

    read_again()
    os._exit(main(words))


def on_eight_devices(script: Path) -> Any:
    """What a script prints as its last line, JSON, run with eight fake devices and warnings as errors."""
    flags = " ".join(("--xla_force_host_platform_device_count=8", *QUICK))
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "training")])
    done = subprocess.run(
        [sys.executable, "-W", "error", script],
        env=environment(XLA_FLAGS=flags, PYTHONPATH=paths),
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def signal_when(process: subprocess.Popen, reached: Callable[[], bool], number: int) -> tuple[int, str]:
    """Sends a signal as soon as `reached`, waits for the end; (exit code, standard error)."""
    deadline = time.monotonic() + 400
    while process.poll() is None and time.monotonic() < deadline:
        if reached():
            process.send_signal(number)
            break
        time.sleep(0.001)
    try:
        _, err = process.communicate(timeout=200)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        raise
    return process.returncode, err


def lines(file: Path) -> int:
    """Complete lines of a file that may not be there."""
    try:
        return file.read_bytes().count(b"\n")
    except OSError:
        return 0


def of_the_machine(metric: str) -> bool:
    """Whether a metric tells of the machine, not of the run."""
    return metric.startswith("seconds") or metric in ("images_per_second", "teraflops_per_second", "mfu", "goodput")


def curve(workdir: Any, stage: str) -> list[str]:
    """A stage's metrics, a line of JSON per step, without what tells of the machine."""
    rows = map(json.loads, (workdir / stage / "metrics.jsonl").read_text().splitlines())
    return [json.dumps({name: value for name, value in row.items() if not of_the_machine(name)}) for row in rows]


def record(workdir: Any, stage: str) -> Any:
    """What a stage left in `stage.json`, without the names that Orbax makes up."""
    from fae_jax.stages.stage import read_record
    from fae_jax.workdir import Workdir

    return dataclasses.replace(read_record(Workdir(workdir), stage), checkpoint="")


def saved_state(workdir: Any, stage: str) -> dict[str, np.ndarray]:
    """Everything in a stage's newest checkpoint: path → array."""
    import jax
    from orbax.checkpoint import v1 as ocp

    folders = (workdir / stage / "checkpoints").iterdir()
    newest = max((folder for folder in folders if folder.name.isdigit()), key=lambda folder: int(folder.name))
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), ocp.metadata(newest).metadata
    )
    leaves = jax.tree_util.tree_leaves_with_path(ocp.load(newest, shapes))
    return {f"{newest.name}{jax.tree_util.keystr(path)}": np.asarray(leaf) for path, leaf in leaves}


def assert_same_arrays(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> None:
    """Bit for bit."""
    assert ours.keys() == theirs.keys()
    different = [name for name in ours if ours[name].tobytes() != theirs[name].tobytes()]
    assert not different, different


def _walk(root: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(root.rglob("*")):
        yield str(path.relative_to(root)), path.read_bytes() if path.is_file() else b"<folder>"


def tree_hash(root: Path) -> str:
    """Of all names and bytes under a folder (or of a file, or of nothing)."""
    digest = hashlib.sha256(root.read_bytes() if root.is_file() else str(root.exists()).encode())
    for name, content in _walk(root) if root.is_dir() else ():
        digest.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
    return digest.hexdigest()
