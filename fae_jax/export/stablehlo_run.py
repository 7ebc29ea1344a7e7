"""Runs a model that `fae export --format stablehlo` wrote: jax and numpy are all it needs.

python run.py --labels 207,360 --seed 0 --out images.npz

from run import Model
images = Model().generate([207, 360], seed=0)       # (2, height, width, 3) in [−1, 1]
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

try:
    import flatbuffers  # noqa: F401 -- by which jax.export reads its files
except ImportError:
    sys.path.append(str(Path(__file__).parent))  # it lies beside this file

from jax import export

FORMAT = 1


def _tree(file: Path) -> dict[str, Any]:
    """{"a.b": array} of a file as {"a": {"b": array}} on the device."""
    tree: dict[str, Any] = {}
    with np.load(file) as arrays:
        for name in arrays.files:
            *path, last = name.split(".")
            array = arrays[name]
            inside = tree
            for key in path:
                inside = inside.setdefault(key, {})
            inside[last] = jnp.asarray(array.view(jnp.bfloat16) if array.dtype.kind == "V" else array)
    return tree


class Model:
    """The programs of a folder and their weights, each read when it is first used.

    Args:
      folder: where they are; by default that of this file.

    Raises:
      ValueError: it was written by another version.
    """

    def __init__(self, folder: str | Path = Path(__file__).parent):
        self.folder = Path(folder)
        self.about = json.loads((self.folder / "model.json").read_text())
        if self.about["format"] != FORMAT:
            raise ValueError(f"{folder} has format {self.about['format']}, and this run.py reads {FORMAT}")
        self._weights = functools.cache(lambda part: _tree(self.folder / f"{part}.npz"))
        self._program = functools.cache(self._read)

    def _read(self, name: str) -> Any:
        programs = self.about["programs"]
        if name not in programs:
            raise ValueError(f"{self.folder} has no program {name}; it has {', '.join(programs)}")
        run = jax.jit(export.deserialize(bytearray((self.folder / f"{name}.jax").read_bytes())).call)
        params = {part: self._weights(part) for part in programs[name]["reads"]}
        return functools.partial(run, params)

    def encode(self, images: Any) -> Any:
        """Images (b, height, width, 3) in [−1, 1] → latents (b, rows, columns, c), the posterior's means."""
        mean, _ = self._program("encode")(jnp.asarray(images, jnp.float32))
        return mean

    def decode(self, latents: Any) -> Any:
        """Latents (b, rows, columns, c) → images in [−1, 1]."""
        return self._program("decode")(jnp.asarray(latents, jnp.float32))

    def generate(self, labels: Any, seed: int = 0, steps: int | None = None) -> np.ndarray:
        """One image in [−1, 1] per label; image i depends on (seed, i, label) alone.

        Args:
          labels: classes; the number of classes itself means "of no class".
          seed: of all noise, 0 … 2³² − 1.
          steps: those of another program of the folder; None for the model's own sampler.

        Raises:
          ValueError: a label or seed is out of range, or there is no such program.
        """
        given = np.asarray(labels, np.int32)
        if given.ndim != 1 or not len(given) or given.min() < 0 or given.max() > self.about["labels"]:
            raise ValueError(f"labels must be a list of numbers from 0 to {self.about['labels']}, got {labels}")
        if not 0 <= seed < 2**32:
            raise ValueError(f"seed must be from 0 to {2**32 - 1}, got {seed}")
        run = self._program("generate" if steps is None else f"generate_{steps}_steps")
        size = min(self.about["batch"], len(given))
        images = []
        for start in range(0, len(given), size):
            part = given[start : start + size]
            filled = np.concatenate([part, part[-1:].repeat(size - len(part))])
            images.append(np.asarray(run(filled, np.uint32(seed), np.uint32(start)))[: len(part)])
        return np.concatenate(images)


def main() -> None:
    parser = argparse.ArgumentParser(description="Draws images with the model in this folder.")
    parser.add_argument("--labels", required=True, help="classes, separated by commas")
    parser.add_argument("--seed", type=int, default=0, help="seed of all noise (default 0)")
    parser.add_argument("--steps", type=int, help="steps of the few-step program (default: the model's own sampler)")
    parser.add_argument("--out", required=True, help="file to write: images (n, height, width, 3), uint8")
    given = parser.parse_args()
    try:
        labels = [int(label) for label in given.labels.split(",")]
        images = Model().generate(labels, given.seed, given.steps)
    except ValueError as error:
        parser.error(str(error))
    np.savez(given.out, images=np.round(np.clip(127.5 * images + 127.5, 0, 255)).astype(np.uint8), labels=labels)


if __name__ == "__main__":
    main()
