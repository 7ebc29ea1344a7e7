"""A process of its own for each compilation: JAX's platform and the TPU compiler are chosen once per process.

`python -P -m fae_jax.compiler.child` reads a request as JSON from standard input, and leaves one line of JSON on
standard output: the figures of `weigh`, or {"error": text, "code": 2 or 1}.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from typing import Any

import jax

from fae_jax.compiler.weigh import judge, read_report, weigh
from fae_jax.config import check, from_json, to_json
from fae_jax.errors import RunFailed
from fae_jax.parallel.topologies import parse_topology
from fae_jax.parallel.xla_flags import ON_CHIP, set_flags

# On a machine without TPU: do not look for one, nor ask a metadata server that is not there; two processes may load
# the compiler at once; and it reports on standard error, not in files
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_LOG_DIR": "disabled",
    "TPU_MIN_LOG_LEVEL": "0",
    "TPU_STDERR_LOG_LEVEL": "0",
    "TF_CPP_MIN_LOG_LEVEL": "0",
}


def check_compiler(topology: str | None) -> None:
    """Refuses a TPU topology where there is no TPU compiler.

    Raises:
      ValueError: it says what to install.
    """
    if topology and importlib.util.find_spec("libtpu") is None:
        raise ValueError("the TPU compiler is not installed; run: pip install 'fae_jax[tpu]'")


def ask(config: Any, stage: str, topology: str | None, quick: bool = False, limit: float = 1800.0) -> dict[str, Any]:
    """`weigh` in a process of its own, with the flags of `fae_jax.parallel.xla_flags` for the topology's chips, but
    the one that changes nothing in HBM and takes the compiler so long.

    Args:
      topology: see `fae_jax.parallel.topologies`; None for the devices that are here.
      quick: the compiler makes little effort (O1). Up to five times as fast; memory differs by some per cent.
      limit: seconds it may take.

    Raises:
      ValueError: the request cannot be compiled; RunFailed: the compiler failed or took too long.
    """
    request = json.dumps({"config": to_json(config), "stage": stage, "topology": topology, "quick": quick})
    environment = {**os.environ, **(ENVIRONMENT if topology else {})}
    if topology:
        set_flags(environment, parse_topology(topology).generation, leave_out=(ON_CHIP,))
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "fae_jax.compiler.child"],
            input=request,
            env=environment,
            capture_output=True,
            text=True,
            timeout=limit,
        )
    except subprocess.TimeoutExpired:
        raise RunFailed(f"compiling {stage} for {topology or 'this machine'} took over {limit:.0f} s") from None
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RunFailed(f"compiling {stage} for {topology or 'this machine'} failed: {last[:300]}")
    answer = json.loads(lines[-1])
    if "error" in answer:
        raise (ValueError if answer["code"] == 2 else RunFailed)(answer["error"])
    return judge({**answer, **(read_report(done.stderr) if answer["fits"] else {})})


def main() -> None:
    request = json.load(sys.stdin)
    if request["quick"]:
        jax.config.update("jax_optimization_level", "O1")
    try:
        topology = parse_topology(request["topology"]) if request["topology"] else None
        answer = weigh(check(from_json(request["config"])), request["stage"], topology)
    except (ValueError, FileNotFoundError) as error:
        answer = {"error": str(error), "code": 2}
    except RunFailed as error:
        answer = {"error": str(error), "code": 1}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
