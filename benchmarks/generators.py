"""Generators and their options at equal compute, on the latents of one finished quickstart.

    fae quickstart --out runs/quickstart
    python benchmarks/generators.py --workdir runs/quickstart --out runs/bench
    python benchmarks/generators.py --workdir runs/quickstart --out runs/bench --times     # on a quiet machine

Every generator trains on the same latent cache with every seed, for as many steps as the multiply-adds of its loss
and gradient allow within what the quickstart's own generator takes; everything else is the quickstart's.
From each way of sampling 1,000 images are drawn with balanced labels and judged by those who saw nothing of ours:

    accuracy    share in which a support vector machine, trained on real digits, reads the digit that was asked for
    Fréchet     distance from the real training images, in the 8×8 grey values that this machine sees

The weight of guidance is the best of `WEIGHTS` by that distance on another 500 images, which the first of the trained
networks draws. What is finished is kept in --out, and the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from machine import describe
from sklearn.svm import SVC

import fae_jax
from fae_jax.conditions import make_condition
from fae_jax.config import check, from_json, override, settle
from fae_jax.data.sources.digits import DigitsSource
from fae_jax.evaluation.metrics.recognised import GAMMA, PENALTY, low_resolution
from fae_jax.extractors.moments import Moments, frechet_distance
from fae_jax.generators import make_generator
from fae_jax.model import FAE
from fae_jax.nn.flops import multiply_adds
from fae_jax.stages.costs import image_flops
from fae_jax.tokenizers import tokenizer_kind

Fields = dict[str, Any]
Kinds = Callable[[float], tuple[Any, ...]]  # a weight → intervals
Ways = dict[str, tuple[Kinds | None, Fields]]  # name → guidance of a weight, fields of sampling

WEIGHTS = (1.25, 1.5, 2.0, 3.0)
DRAWN, SEARCHED = 1_000, 500

UNGUIDED: Ways = {"unguided": (None, {})}
INTERVAL: Ways = {"classifier-free on [0, 0.7]": (lambda w: ((0.0, 0.7, w),), {})}
INTERNAL: Ways = {
    "internal": (lambda w: ((0.0, 1.0, w, "internal"),), {}),
    "internal 1.5, classifier-free on [0, 0.7]": (lambda w: ((0.0, 1.0, 1.5, "internal"), (0.0, 0.7, w)), {}),
}
FLOW = "generator.flow_matching"
SIZES = {"width": 128, "heads": 4, "hidden": 344}
MEAN = {
    "generator.kind": "mean_flow",
    **{f"generator.mean_flow.dit.{k}": v for k, v in (SIZES | {"depth": 4}).items()},
}
FLOWING = {
    "generator.kind": "starflow",
    **{
        f"generator.starflow.{k}": v
        for k, v in (SIZES | {"depth": 3, "shallow_blocks": 2, "shallow_depth": 1}).items()
    },
}

# name → fields in which it differs from the quickstart, ways to sample it
ARMS: dict[str, tuple[Fields, Ways]] = {
    "flow matching": ({}, {**UNGUIDED, **INTERVAL}),
    "with a head after block 2": ({f"{FLOW}.dit.middle": 2}, {**UNGUIDED, **INTERVAL, **INTERNAL}),
    "logit-normal times": ({f"{FLOW}.times": "logit_normal"}, {**UNGUIDED, **INTERVAL}),
    "data prediction": ({f"{FLOW}.prediction": "data"}, {**UNGUIDED, **INTERVAL}),
    "cosine direction": ({f"{FLOW}.cosine_weight": 1.0}, {**UNGUIDED, **INTERVAL}),
    "SiT's blocks": (
        {f"{FLOW}.dit.{k}": v for k, v in (("norm", "layer"), ("feed_forward", "gelu_tanh"), ("rotary", False))},
        {**UNGUIDED, **INTERVAL},
    ),
    "tokens aligned with x̂": (
        {f"generator.repa.{name}": value for name, value in {"weight": 0.5, "depth": 2, "hidden": 256}.items()},
        {**UNGUIDED, **INTERVAL},
    ),
    "Muon": ({"generator.optimizer": "muon"}, {**UNGUIDED, **INTERVAL}),
    "mean flow": (
        MEAN | {"generator.mean_flow.guidance": "asked", "sampling.guidance": "((0.0, 1.0, 2.0),)"},
        {
            f"{n} step{'s' * (n > 1)}{guided and ', guided'}": (
                (lambda w: ((0.0, 1.0, w),)) if guided else None,
                {"steps": n},
            )
            for n in (1, 2, 4)
            for guided in ("", "guided")
        },
    ),
    "STARFlow": (FLOWING, {**UNGUIDED, "guided": (lambda w: ((0.0, 1.0, w),), {})}),
}


class Judge:
    """The machine, and the moments of real training images as it sees them."""

    def __init__(self) -> None:
        train, heldout = (DigitsSource(split=split, holdout=0.2, seed=0) for split in ("train", "heldout"))
        seen, unseen = (low_resolution(np.repeat(part.images[..., None], 3, -1)) for part in (train, heldout))
        self.machine = SVC(kernel="rbf", gamma=GAMMA, C=PENALTY).fit(seen, train.labels)
        self.real = Moments.of(seen)
        self.heldout = {
            "accuracy": float(np.mean(self.machine.predict(unseen) == heldout.labels)),
            "frechet": frechet_distance(Moments.of(unseen), self.real),
            "images": len(unseen),
        }

    def __call__(self, images: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        seen = low_resolution(np.rint((images + 1) * 127.5).astype(np.uint8))
        return {
            "accuracy": float(np.mean(self.machine.predict(seen) == labels)),
            "frechet": frechet_distance(Moments.of(seen), self.real),
        }


def train(base: Path, folder: Path, fields: Fields, seed: int) -> None:
    """The generator of one arm and seed in a working directory of its own, beside copies of the finished stages."""
    if not folder.is_dir():
        for stage in ("encoder", "features", "pixels", "finetune", "latents"):
            shutil.copytree(base / stage, folder / stage)
    command = [sys.executable, "-m", "fae_jax", "train", "generator", "--config", "quickstart"]
    overrides = [f"--config.{name}={value}" for name, value in {"seed": seed, **fields}.items()]
    subprocess.run([*command, "--workdir", str(folder), *overrides], check=True)


def cost(config: Any) -> int:
    """Multiply-adds of one image in a training step: the loss and its gradient, and what tokens are aligned with."""
    config = check(config)
    alone = check(override(config, [("generator.repa.weight", "0")]))
    aligning = (image_flops(config, "generator") - image_flops(alone, "generator")) // 2
    tokenizer = tokenizer_kind(config).outline(config)
    shape = {"grid": tokenizer.grid, "channels": tokenizer.channels}
    generator = make_generator(config, **shape, condition=make_condition(config))
    latents = jax.ShapeDtypeStruct((1, tokenizer.grid[0] * tokenizer.grid[1], tokenizer.channels), jnp.float32)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1))

    def loss(params: Any, z: Any, keys: Any) -> Any:
        return generator.loss(params, z, jnp.zeros(1, jnp.int32), keys, jnp.int32(0))[0]

    return aligning + multiply_adds(jax.grad(loss), jax.eval_shape(generator.init, jax.random.key(0)), latents, keys)


def allowed(base: Path, fields: Fields) -> tuple[int, int]:
    """How many steps cost no more than those of the quickstart's generator, and the `cost` of one image."""
    config = from_json((base / "config.json").read_text())
    whole, own = (cost(settle(config, [(name, str(value)) for name, value in each.items()])) for each in ({}, fields))
    return config.generator.steps * whole // own, own


def draw(
    fae: FAE, intervals: tuple[Any, ...], fields: Fields, number: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Images in [−1, 1] of balanced labels, and these; one program serves all weights."""
    labels = np.arange(number) % 10
    settings = fae.settings(guidance=intervals or None, **fields)
    condition = fae.generator.condition.request(labels)
    images = fae.images(condition, settings, seed=seed, guidance=settings.guidance or None)
    return np.concatenate(list(images)), labels


def scores(fae: FAE, judge: Judge, kinds: Kinds | None, fields: Fields, weight: float | None) -> dict[str, Any]:
    """What one way of sampling reaches; the weight that another 500 images choose, where none is given."""
    if kinds is not None and weight is None:
        searched = {w: judge(*draw(fae, kinds(w), fields, SEARCHED, 1))["frechet"] for w in WEIGHTS}
        weight = min(searched, key=lambda w: searched[w])
    intervals = kinds(weight) if kinds is not None and weight is not None else ()
    evaluations = fae.generator.evaluations(fae.settings(guidance=intervals or None, **fields))
    return {"weight": weight, "function_evaluations": evaluations, **judge(*draw(fae, intervals, fields, DRAWN, 0))}


def milliseconds(fae: FAE, kinds: Kinds | None, fields: Fields, weight: float | None) -> float:
    """A sample's share of 250 drawn together, decoders included: the best of five."""
    intervals = kinds(weight) if kinds is not None and weight is not None else ()
    taken = []
    for _ in range(6):  # the first one compiles
        begun = time.perf_counter()
        draw(fae, intervals, fields, 250, 0)
        taken.append(time.perf_counter() - begun)
    return min(taken[1:]) / 250 * 1e3


def rows(found: dict[str, Any]) -> Iterator[str]:
    """The table: mean over seeds ± the standard deviation of a seed."""
    yield "| generator | steps | sampled | weight | evaluations | accuracy % | Fréchet | ms a sample |"
    yield "|---|---|---|---|---|---|---|---|"
    for arm, (_, ways) in ARMS.items():
        for way in ways:
            each = [run[way] for run in found.get(arm, {}).get("seeds", {}).values() if way in run]
            if not each:
                continue
            numbers = {name: [one[name] for one in each] for name in ("accuracy", "frechet", "function_evaluations")}
            accuracy, frechet = (
                [statistics.mean(numbers[n]), statistics.stdev(numbers[n]) if len(each) > 1 else 0.0]
                for n in ("accuracy", "frechet")
            )
            weight = each[0]["weight"]
            times = found[arm].get("milliseconds", {}).get(way)
            yield (
                f"| {arm} | {found[arm]['steps']} | {way} | {weight or '–'} | {each[0]['function_evaluations']} | "
                f"{100 * accuracy[0]:.1f} ± {100 * accuracy[1]:.1f} | {frechet[0]:.2f} ± {frechet[1]:.2f} | "
                f"{'–' if times is None else f'{times:.2f}'} |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, required=True, help="a finished `fae quickstart`")
    parser.add_argument("--out", type=Path, required=True, help="where generators and figures are kept")
    parser.add_argument("--seeds", type=int, default=3, help="how often each is trained (default: 3)")
    parser.add_argument("--arms", nargs="*", choices=ARMS, default=list(ARMS), metavar="ARM", help="(default: all)")
    parser.add_argument("--times", action="store_true", help="milliseconds a sample of what is there, nothing else")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    kept = arguments.out / "generators.json"
    found: dict[str, Any] = json.loads(kept.read_text()) if kept.is_file() else {}
    judge = Judge()
    found["machine"], found["heldout"] = describe(), judge.heldout
    for seed in range(arguments.seeds):
        for arm in arguments.arms:
            fields, ways = ARMS[arm]
            steps, multiply_adds = allowed(arguments.workdir, fields)
            of_arm = found.setdefault(arm, {"steps": steps, "multiply_adds": multiply_adds, "seeds": {}})
            done = of_arm["seeds"].setdefault(str(seed), {})
            if arguments.times and seed:
                continue
            if not arguments.times and set(ways) <= set(done):
                continue
            folder = arguments.out / f"{arm.replace(' ', '_')}_{seed}"
            if not arguments.times:
                train(arguments.workdir, folder, {**fields, "generator.steps": steps}, seed)
            fae = fae_jax.load(folder)
            for way, (kinds, sampling) in ways.items():
                if arguments.times:
                    of_arm.setdefault("milliseconds", {})[way] = milliseconds(
                        fae, kinds, sampling, done[way]["weight"]
                    )
                else:
                    first = of_arm["seeds"]["0"].get(way, {}).get("weight")
                    done[way] = scores(fae, judge, kinds, sampling, first)
                print(f"{arm}, seed {seed}, {way}: {done[way]}", flush=True)
            kept.write_text(json.dumps(found, indent=1))
    print(json.dumps(found["machine"]))
    print(f"real held-out images: {judge.heldout}")
    print("\n".join(rows(found)))


if __name__ == "__main__":
    main()
