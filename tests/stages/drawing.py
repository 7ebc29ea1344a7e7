"""Run by test_sampling: a stand-in for a model draws large sets; prints the peaks of memory, in MB, as JSON."""

import json
import resource
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np

from fae_jax.conditions.label import ClassLabel
from fae_jax.config import check, default_config
from fae_jax.evaluation.metrics import results, take_in
from fae_jax.evaluation.streams import sampled
from fae_jax.model import FAE
from fae_jax.parallel.mesh import make_mesh
from fae_jax.stages.sampling import Drawing, choose_labels


class Blocks(FAE):
    """Draws images of 16×16 blocks of random grey, without a network."""

    def __init__(self, size: int, batch: int):
        config = default_config()
        config.data.image_size, config.sampling.batch = size, batch
        self.config = check(config)
        self.tokenizer = SimpleNamespace(decodes=())
        self.parts = SimpleNamespace(
            params=lambda part, ema="": {"by": np.ones(1, np.float32)},
            read_generator={"": {"checkpoint": 3, "ema": "0.9"}},
            classes=tuple(f"class {number}" for number in range(1000)),
            mesh=make_mesh(devices=jax.devices()[:1]),
        )
        self.generator = SimpleNamespace(condition=ClassLabel(classes=1000), evaluations=lambda settings: 250)

    def _sampling(self, settings):
        size = self.config.data.image_size

        @jax.jit
        def run(params, keys, condition):
            blocks = jax.vmap(lambda key: jax.random.uniform(key, (16, 16, 3), minval=-1))(keys)
            return jax.image.resize(blocks, (len(blocks), size, size, 3), "nearest")

        return run

    def features(self, images):
        return np.asarray(images)[:, ::16, ::16]


def main(folder: str, *counts: str) -> None:
    fae, peaks = Blocks(256, 64), []
    for count in map(int, counts):
        labels = choose_labels(range(20), count, "balanced", 0)
        drawing = Drawing(fae=fae, folder=Path(folder), labels=labels, guidance=None)
        metrics = take_in(sampled(fae, drawing), ("frechet",), None, fae.classes)
        scores, _ = results(metrics, {"train": metrics, "heldout": metrics})
        assert scores["frechet"]["samples"] == count
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    print(json.dumps(peaks))


if __name__ == "__main__":
    main(*sys.argv[1:])
