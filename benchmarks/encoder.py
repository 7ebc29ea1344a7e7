"""Images per second of a frozen encoder's forward pass, beside `transformers` in the same run.

    python benchmarks/encoder.py --sizes s b --batch 8 --repeats 5

Random weights, DINOv2 at 224×224, float32, the same weights and images in both; both warm up, then take turns;
the best and the median of the turns are printed. What they compute is compared before anything is timed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from fae_jax.encoders import create
from fae_jax.encoders.published import ENCODERS
from fae_jax.parallel.xla_flags import keep_freed_memory, set_flags


def reference(name: str, folder: str, pixels: np.ndarray, threads: int) -> Callable[[], np.ndarray]:
    """The network of `transformers`, its weights saved in `folder`, as a function to time."""
    import torch
    import transformers

    torch.set_num_threads(threads)
    fields = {key: value for key, value in ENCODERS[name].fields.items() if key != "model_type"}
    torch.manual_seed(0)
    model = transformers.Dinov2Model(transformers.Dinov2Config(**fields)).eval()
    model.save_pretrained(folder)
    theirs = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))

    def run() -> np.ndarray:
        with torch.inference_mode():
            return model(theirs).last_hidden_state[:, 1:].numpy()

    return run


def ours(name: str, folder: str, pixels: np.ndarray, scan: bool) -> Callable[[], np.ndarray]:
    """This project's network, read from `folder`, as a function to time."""
    encoder = create(name, weights=folder, image_size=224, scan=scan)
    compiled = jax.jit(lambda params, pixels: encoder.apply(params, pixels).patches)
    placed = jnp.asarray(pixels)
    return lambda: np.asarray(compiled(encoder.params, placed))


def main() -> None:
    keep_freed_memory()  # it and the flags: as `fae` begins
    set_flags()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["s", "b"], choices=["s", "b", "l", "g"])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2, help="threads of the reference")
    parser.add_argument("--scan", action="store_true", help="compile one block and loop, as on accelerators")
    arguments = parser.parse_args()
    pixels = np.random.default_rng(0).standard_normal((arguments.batch, 224, 224, 3)).astype(np.float32)
    for size in arguments.sizes:
        name = f"dinov2_{size}14"
        with tempfile.TemporaryDirectory() as folder:
            theirs = reference(name, folder, pixels, arguments.threads)
            mine = ours(name, folder, pixels, arguments.scan)
        apart = np.abs(theirs() - mine()).max()
        seconds: dict[str, list[float]] = {"transformers": [], "fae_jax": []}
        for _ in range(arguments.repeats):
            for label, run in (("transformers", theirs), ("fae_jax", mine)):
                begin = time.perf_counter()
                run()
                seconds[label].append(time.perf_counter() - begin)
        rates = {label: arguments.batch / min(times) for label, times in seconds.items()}
        medians = {label: arguments.batch / statistics.median(times) for label, times in seconds.items()}
        result = {
            "encoder": name,
            "batch": arguments.batch,
            "largest_difference": float(apart),
            "images_per_second_best": {label: round(rate, 2) for label, rate in rates.items()},
            "images_per_second_median": {label: round(rate, 2) for label, rate in medians.items()},
            "ratio_best": round(rates["fae_jax"] / rates["transformers"], 3),
            "ratio_median": round(medians["fae_jax"] / medians["transformers"], 3),
        }
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
