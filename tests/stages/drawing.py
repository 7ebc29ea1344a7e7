"""Run by test_sampling: a stand-in for a model draws large sets; prints the peaks of memory, in MB, as JSON.

    python tests/stages/drawing.py FOLDER 1000 5000            scores of 64 features
    python tests/stages/drawing.py FOLDER 1000 5000 --all      every metric that needs no experiment, of features as
                                                               wide as the published networks'

samples.npz of 50,000 images takes 9.8 GB in FOLDER.
"""

import argparse
import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np

from fae_jax.conditions.label import ClassLabel
from fae_jax.config import check, default_config
from fae_jax.evaluation.looks import Looks
from fae_jax.evaluation.metrics import results, take_in
from fae_jax.evaluation.metrics.fdr6 import IMAGENET
from fae_jax.evaluation.streams import Evaluators, sampled
from fae_jax.extractors import EXTRACTORS, Extractor
from fae_jax.model import FAE
from fae_jax.parallel.mesh import make_mesh
from fae_jax.stages.sampling import Drawing, choose_labels

CHOSEN = ("fid", "inception_score", "precision_recall")
EVERY = (*CHOSEN, "sfid", "frechet", "kid", "mind", "cmmd", "fdr6")
FEW = {"inception": {"pool_3": 64, "logits": 64}}
WIDTHS = {  # of each tap that `EVERY` reads
    "inception": {"pool_3": 2048, "spatial": 2023, "logits": 1008},
    "clip_l14_336": {"pooled": 768},
    "fd_loss_convnext": {"pooled": 1024},
    "fd_loss_dinov2": {"cls": 1024},
    "fd_loss_mae": {"cls": 1024},
    "fd_loss_siglip2": {"pooled": 1152},
    "fd_loss_clip": {"cls": 1024},
}


class Blocks(FAE):
    """Draws images of 16×16 blocks of random grey, without a network."""

    def __init__(self, size: int, batch: int):
        config = default_config()
        config.data.image_size, config.sampling.batch = size, batch
        config.evaluation.metrics.frechet.extractors = ("inception:pool_3",)
        config.evaluation.metrics.fdr6.validation = IMAGENET
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


def few(name: str, weights: str) -> Extractor:
    """Inception of few features."""
    return projections(name, weights, FEW)


def projections(name: str, weights: str, widths: Mapping[str, Mapping[str, int]] = WIDTHS) -> Extractor:
    """Random projections of the blocks, in the place of a network."""

    def apply(params, images):
        blocks = images[:, ::16, ::16].reshape(len(images), -1) / 255 - 0.5
        return {tap: blocks @ params[tap] for tap in params}

    params = {tap: jax.random.normal(jax.random.key(0), (768, width)) / 28 for tap, width in widths[name].items()}
    return Extractor(name=name, variant="projections", weights_hash="0" * 64, params=params, apply=jax.jit(apply))


def peak() -> float:
    """MB that this program has taken at most; `ru_maxrss` would hold its parent's too."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("counts", type=int, nargs="+", help="images of each set")
    parser.add_argument("--all", action="store_true", help="every metric that needs no experiment")
    arguments = parser.parse_args()
    fae, peaks = Blocks(256, 64), []
    EXTRACTORS.update(dict.fromkeys(WIDTHS, "__main__:projections" if arguments.all else "__main__:few"))
    chosen = EVERY if arguments.all else CHOSEN
    for count in arguments.counts:
        labels = choose_labels(range(20), count, "balanced", 0)
        drawing = Drawing(fae=fae, folder=arguments.folder, labels=labels, guidance=None)
        metrics = take_in(sampled(drawing, Evaluators(lambda: Looks(fae))), chosen, fae.config.evaluation.metrics, ())
        scores, _ = results(metrics, {"reference": metrics})
        assert scores["fid"]["samples"] == count and abs(scores["fid"]["value"]) < 1e-6
        peaks.append(peak())
    print(json.dumps(peaks))


if __name__ == "__main__":
    main()
