"""Milliseconds of attention on a CPU: queries whole, in halves, and PyTorch's, forward and with the gradient.

    python benchmarks/attention.py --shapes 8,257,6,64 8,257,12,64      batch, tokens, heads, channels per head

float32, queries, keys and values cut from one array as in a block; all warm up, then take turns with a pause between,
in which PyTorch's threads stop to spin; the best turn counts. What they compute is compared before anything is timed.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jaxtyping import Array
from machine import describe

from fae_jax.nn import attention as module
from fae_jax.parallel.xla_flags import keep_freed_memory, set_flags


def ours(joint: np.ndarray, queries: int, gradient: bool) -> Callable[[], np.ndarray]:
    """With halves from `queries` + 1 queries on."""

    def run(x: Array) -> Array:
        return module.attention(*(part[:, :, 0] for part in jnp.split(x, 3, axis=2)), kernel="cpu")

    with mock.patch.object(module, "CPU_QUERIES", queries):
        function = jax.grad(lambda x: jnp.sum(run(x) ** 2)) if gradient else run
        compiled = jax.jit(function).lower(joint).compile()
    placed = jax.device_put(joint)
    return lambda: np.asarray(compiled(placed))


def theirs(joint: np.ndarray, gradient: bool) -> Callable[[], np.ndarray]:
    x = torch.from_numpy(joint).requires_grad_(gradient)

    def run() -> np.ndarray:
        query, key, value = (x[:, :, i].transpose(1, 2) for i in range(3))
        mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value).transpose(1, 2)
        if not gradient:
            return mixed.numpy()
        (found,) = torch.autograd.grad(mixed.square().sum(), x)
        return found.numpy()

    return run


def measure(shape: tuple[int, ...], gradient: bool, repeats: int) -> dict[str, object]:
    batch, tokens, heads, channels = shape
    joint = np.random.default_rng(0).standard_normal((batch, tokens, 3, heads, channels)).astype(np.float32)
    runs = {"whole": ours(joint, 2**30, gradient), "torch": theirs(joint, gradient)}
    if module.CPU_QUERIES < tokens < 2 * module.CPU_QUERIES:
        runs["halves"] = ours(joint, module.CPU_QUERIES, gradient)
    apart = max(float(np.abs(run() - runs["torch"]()).max()) for run in runs.values())
    best = dict.fromkeys(runs, np.inf)
    for _ in range(repeats):
        for name, run in runs.items():
            time.sleep(0.05)
            begin = time.perf_counter()
            run()
            best[name] = min(best[name], time.perf_counter() - begin)
    milliseconds = {name: round(1e3 * seconds, 1) for name, seconds in best.items()}
    return {"shape": shape, "gradient": gradient, "largest_difference": apart, "milliseconds": milliseconds}


def main() -> None:
    keep_freed_memory()  # it and the flags: as `fae` begins
    set_flags()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=["8,256,6,64", "8,257,6,64", "8,257,12,64", "8,256,6,256"])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2, help="PyTorch's")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(json.dumps(describe()), flush=True)
    for text in options.shapes:
        for gradient in (False, True):
            print(json.dumps(measure(tuple(map(int, text.split(","))), gradient, options.repeats)), flush=True)


if __name__ == "__main__":
    main()
