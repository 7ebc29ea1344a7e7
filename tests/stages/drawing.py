"""Run by test_sampling: a stand-in for a model draws large sets; prints the peaks of memory, in MB, as JSON."""

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np

from fae_jax.conditions.label import ClassLabel
from fae_jax.config import check, default_config
from fae_jax.evaluation.looks import Looks
from fae_jax.evaluation.metrics import results, take_in
from fae_jax.evaluation.streams import Evaluators, sampled
from fae_jax.extractors import EXTRACTORS, Extractor
from fae_jax.model import FAE
from fae_jax.parallel.mesh import make_mesh
from fae_jax.stages.sampling import Drawing, choose_labels

CHOSEN = ("fid", "inception_score", "precision_recall")
WIDTH = 64


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
        def run(params, keys, condition, guidance=None, against=None):
            blocks = jax.vmap(lambda key: jax.random.uniform(key, (16, 16, 3), minval=-1))(keys)
            return jax.image.resize(blocks, (len(blocks), size, size, 3), "nearest"), None

        return run


def projections(name: str, weights: str) -> Extractor:
    """Random projections of the blocks, in the place of Inception."""

    def apply(params, images):
        blocks = images[:, ::16, ::16].reshape(len(images), -1) / 255 - 0.5
        return {tap: blocks @ params[tap] for tap in params}

    widths = {"pool_3": WIDTH, "logits": WIDTH}
    params = {tap: jax.random.normal(jax.random.key(0), (768, width)) / 28 for tap, width in widths.items()}
    return Extractor(name=name, variant="projections", weights_hash="0" * 64, params=params, apply=jax.jit(apply))


def peak() -> float:
    """MB that this program has taken at most; `ru_maxrss` would hold its parent's too."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


def main(folder: str, *counts: str) -> None:
    fae, peaks = Blocks(256, 64), []
    EXTRACTORS["inception"] = "__main__:projections"
    for count in map(int, counts):
        labels = choose_labels(range(20), count, "balanced", 0)
        drawing = Drawing(fae=fae, folder=Path(folder), labels=labels, guidance=None)
        metrics = take_in(sampled(drawing, Evaluators(lambda: Looks(fae))), CHOSEN, fae.config.evaluation.metrics, ())
        scores, _ = results(metrics, {"reference": metrics})
        assert scores["fid"]["samples"] == count and abs(scores["fid"]["value"]) < 1e-6
        peaks.append(peak())
    print(json.dumps(peaks))


if __name__ == "__main__":
    main(*sys.argv[1:])
