"""Do scores put photographs in the order in which they were made worse?

    python benchmarks/orders.py --train 'TRAIN-*.tar' --heldout HELDOUT.tar --out runs/orders \\
        --weights mobilenet_v2=M.npz inception=I.npz vgg16=V.npz [--extractors inception …]

Held-out photographs, the same blurred, compressed and noisy at three strengths each, and what is left of them without
one, three and five classes, which is compared with as many of all classes; each set against the training photographs,
in the taps that partial weights of Inception give, in MobileNetV2's and VGG16's.

Prints tables in Markdown and then one JSON object, both also in --out as far as they have come. Features are kept
there in parts of `PART` photographs, and so is each score: the same command goes on where it was killed.
"""

from __future__ import annotations

import argparse
import functools
import io
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from PIL import Image, ImageFilter

from fae_jax.config import default_config, settle
from fae_jax.evaluation.image_sets import open_images
from fae_jax.evaluation.looks import Looks
from fae_jax.evaluation.metrics import Batch, Metric, results, take_in
from fae_jax.evaluation.views import evenly
from fae_jax.extractors import EXTRACTORS, Extractor
from fae_jax.extractors.inception import INCEPTION
from fae_jax.files.progress import say
from fae_jax.files.storage import read_arrays
from fae_jax.files.writing import json_hash, whole_file, write_atomically, write_json
from fae_jax.parallel.xla_flags import keep_freed_memory, set_flags
from fae_jax.weights import hash_tree

PART = 500
LEFT_OUT = (1, 3, 5)  # classes
DISTANCES, ALL = ("frechet", "kid"), ("frechet", "kid", "mind", "precision_recall")
TAPS = {  # extractor → tap → metrics: those of neighbours where a network has seen most
    "mobilenet_v2": {"pooled": ALL},
    "inception": {"64": DISTANCES, "192": DISTANCES, "spatial": DISTANCES, "768": ALL},
    "vgg16": {"conv5_3": ALL},
}
SCORES = {  # of a table → (metric, its number, whether worse sets score higher)
    "Fréchet distance": ("frechet", "samples_to_reference", True),
    "KID": ("kid", "value", True),
    "MIND": ("mind", "value", True),
    "recall": ("precision_recall", "recall", False),
    "coverage": ("precision_recall", "coverage", False),
}
FILES: dict[str, str] = {}  # extractor → file of its weights
Features = Mapping[str, np.ndarray]  # by tap, and "label"
Known = tuple[Mapping[str, Any], Features]  # what a set is, and what is seen of it


# What makes a photograph worse: (image (y, x, 3) uint8, strength, its number) → image


def blurred(image: np.ndarray, radius: float, number: int = 0) -> np.ndarray:
    """By a Gaussian of that standard deviation in pixels."""
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius)))


def compressed(image: np.ndarray, quality: float, number: int = 0) -> np.ndarray:
    """As a JPEG."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=int(quality))
    return np.asarray(Image.open(file))


def noisy(image: np.ndarray, deviation: float, number: int = 0) -> np.ndarray:
    """Plus noise of that standard deviation, of 255."""
    noise = np.random.default_rng(number).normal(size=image.shape)
    return np.clip(image + deviation * noise, 0, 255).astype(np.uint8)


WAYS: dict[str, tuple[Callable[..., np.ndarray], tuple[float, ...]]] = {  # each stronger than the one before
    "blur": (blurred, (1, 2, 4)),
    "JPEG": (compressed, (30, 10, 5)),
    "noise": (noisy, (15, 30, 60)),
}


# Networks that the package has no need of


def _convolved(x: jax.Array, kernel: jax.Array, bias: jax.Array, stride: int = 1, groups: int = 1) -> jax.Array:
    layout = ("NHWC", "HWIO", "NHWC")
    made = lax.conv_general_dilated(
        x, kernel, (stride, stride), "SAME", dimension_numbers=layout, feature_group_count=groups
    )
    return made + bias


def inception(name: str, weights: str) -> Extractor:
    """The package's own, of another file."""
    return INCEPTION(name, weights or FILES.get(name, ""))


def _opened(name: str, weights: str, variant: str, apply: Callable[..., dict[str, jax.Array]]) -> Extractor:
    if not weights and name not in FILES:
        raise ValueError(f"name the weights of {name}: --weights {name}=FILE")
    params = {each: np.asarray(array, np.float32) for each, array in read_arrays(weights or FILES[name]).items()}
    return Extractor(name=name, variant=variant, weights_hash=hash_tree(params), params=params, apply=apply)


def mobilenet_v2(name: str, weights: str) -> Extractor:
    """MobileNetV2 1.0 (arXiv 1801.04381, table 2): pooled 1280 channels and 1001 logits. Its file holds kernels
    (out, y, x, in) in the order of the operations, `00_conv_2d/w`."""

    def apply(params: Mapping[str, jax.Array], images: jax.Array) -> dict[str, jax.Array]:
        x, rest = images / 127.5 - 1, iter(sorted({name.split("/")[0] for name in params}))

        def convolution(x: jax.Array, stride: int = 1) -> jax.Array:
            operation = next(rest)
            kernel, bias = params[f"{operation}/w"], params[f"{operation}/b"]
            if "depthwise" in operation:
                return _convolved(x, kernel.transpose(1, 2, 0, 3), bias, stride, x.shape[-1])
            return _convolved(x, kernel.transpose(1, 2, 3, 0), bias, stride)

        x = jax.nn.relu6(convolution(x, 2))
        for expanded, count, stride in (
            *((False, 1, 1), (True, 2, 2), (True, 3, 2), (True, 4, 2)),
            *((True, 3, 1), (True, 3, 2), (True, 1, 1)),
        ):
            for number in range(count):
                inside = jax.nn.relu6(convolution(x)) if expanded else x
                inside = jax.nn.relu6(convolution(inside, 1 if number else stride))
                out = convolution(inside)
                x = x + out if number else out
        pooled = jax.nn.relu6(convolution(x)).mean((1, 2), keepdims=True)
        return {"pooled": pooled[:, 0, 0], "logits": convolution(pooled)[:, 0, 0]}

    return _opened(name, weights, "MobileNetV2 1.0, at the size of the images", apply)


def vgg16(name: str, weights: str, shrunk: int = 2) -> Extractor:
    """VGG16's trunk (arXiv 1409.1556, table 1 D) of images averaged over `shrunk`²: `conv5_3`, averaged. Its file
    holds kernels (out, in, y, x) for images in BGR, `conv1_1/w`."""

    def apply(params: Mapping[str, jax.Array], images: jax.Array) -> dict[str, jax.Array]:
        b, y, x, _ = images.shape
        small = images.astype(jnp.float32).reshape(b, y // shrunk, shrunk, x // shrunk, shrunk, 3).mean((2, 4))
        made = small[..., ::-1] - jnp.array([103.939, 116.779, 123.68])
        for block, depth in enumerate((2, 2, 3, 3, 3), 1):
            if block > 1:
                made = lax.reduce_window(made, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
            for number in range(1, depth + 1):
                layer = f"conv{block}_{number}"
                kernel = params[f"{layer}/w"].transpose(2, 3, 1, 0)
                made = jax.nn.relu(_convolved(made, kernel, params[f"{layer}/b"]))
        return {"conv5_3": made.mean((1, 2))}

    return _opened(name, weights, f"VGG16, at 1/{shrunk} of the size of the images", apply)


# Features, kept


def seen(facts: Mapping[str, Any], looks: Looks, out: Path) -> Features:
    """What an extractor says of a set of photographs; the parts that are not there yet are looked at.

    Args:
      facts: {set, path, way, strength (None: as they are), images (an even choice of so many, 0: all), extractor}.
    """
    name, images = facts["extractor"]["name"], open_images(facts["path"])
    folder = out / f"{name}-{facts['set'].replace(' ', '_')}-{json_hash(facts)[:8]}"
    total = images.count
    chosen = {
        start: evenly(start, min(PART, total - start), total, facts["images"] or total)
        for start in range(0, total, PART)
    }
    files = {start: folder / f"{start:06d}.npz" for start, kept in chosen.items() if kept.any()}
    if not all(file.exists() for file in files.values()):
        for place, (part, labels) in enumerate(images.batches(PART)):
            start = place * PART
            if start not in files or files[start].exists():
                continue
            kept = np.flatnonzero(chosen[start])
            part, labels = part[kept], labels[kept]
            if facts["way"]:
                worse = WAYS[facts["way"]][0]
                numbers = (kept + start).tolist()
                part = np.stack([worse(each, facts["strength"], n) for each, n in zip(part, numbers, strict=True)])
            with whole_file(files[start]) as file:
                np.savez(file, label=labels, **looks.look(name, part))
            say(f"{name}, {facts['set']}: {min(start + PART, total)} of {total}")
    parts = [read_arrays(str(file)) for file in files.values()]
    return {tap: np.concatenate([part[tap] for part in parts]) for tap in ("label", *TAPS[name])}


def rows_of(features: Features, kept: np.ndarray) -> Features:
    """Some rows of each."""
    return {tap: rows[kept] for tap, rows in features.items()}


# Scores, kept


@functools.cache
def section(tap: str) -> Any:
    """The settings of metrics of a tap, EXTRACTOR:TAP."""
    fields = [(f"evaluation.metrics.{metric}.tap", tap) for metric in ALL if metric != "frechet"]
    config = settle(default_config(), [("evaluation.metrics.frechet.extractors", repr((tap,))), *fields])
    return config.evaluation.metrics


def taken(features: Features, extractor: str, tap: str) -> dict[str, Metric]:
    """The metrics of a tap, after its features."""

    def batches() -> Iterator[Batch]:
        for start in range(0, len(features[tap]), PART):
            rows, labels = features[tap][start : start + PART], features["label"][start : start + PART]
            images = np.zeros((len(rows), 1, 1, 3), np.uint8)  # no metric here looks at them
            yield Batch(images=images, labels=labels, look=lambda _, rows=rows: {tap: rows})

    return take_in(batches(), TAPS[extractor][tap], section(f"{extractor}:{tap}"), ())


def scored(sets: Mapping[str, Known], reference: Known, out: Path, extractor: str) -> dict[str, dict[str, Any]]:
    """set → EXTRACTOR:TAP → metric → its scores."""
    scores: dict[str, dict[str, Any]] = {name: {} for name in sets}
    for tap, metrics in TAPS[extractor].items():
        real: dict[str, Metric] | None = None
        for name, (facts, features) in sets.items():
            about = [facts, reference[0], tap, metrics]
            file = out / "scores" / f"{extractor}-{tap}-{name.replace(' ', '_')}-{json_hash(about)[:8]}.json"
            if not file.exists():
                real = taken(reference[1], extractor, tap) if real is None else real
                made, _ = results(taken(features, extractor, tap), {"reference": real})
                distance = made.pop(f"frechet_{extractor}_{tap}")
                write_json(file, {"frechet": distance, **made})
                say(f"{extractor}:{tap}, {name}: {distance['samples_to_reference']:.4g}")
            scores[name][f"{extractor}:{tap}"] = json.loads(file.read_text())
    return scores


def orders(sets: Mapping[str, Any]) -> dict[str, dict[str, dict[str, bool]]]:
    """way → score → tap → whether each of its sets scores worse than the one before, and the first one worse than the
    photographs as they are; "beside": whether sets without classes score worse than as many photographs of all."""

    def worse(first: str, second: str, tap: str, score: str) -> bool:
        metric, number, rises = SCORES[score]
        values = [sets[name][tap][metric][number] for name in (first, second)]
        return values[0] > values[1] if rises else values[0] < values[1]

    pairs = {}
    for way in (*WAYS, "without"):
        names = ["as they are", *(name for name in sets if name.startswith(way))]
        pairs[way] = list(zip(names[1:], names, strict=False))
    pairs["beside"] = [(f"without {count}", f"beside {count}") for count in LEFT_OUT]
    return {
        way: {
            score: {
                tap: all(worse(*pair, tap, score) for pair in each)
                for tap, metrics in sets["as they are"].items()
                if metric in metrics
            }
            for score, (metric, _, _) in SCORES.items()
        }
        for way, each in pairs.items()
    }


def tables(sets: Mapping[str, Any]) -> str:
    """A table in Markdown of each score: a row for a set, a column for a tap."""
    lines = []
    for score, (metric, number, _) in SCORES.items():
        taps = [tap for tap, each in sets["as they are"].items() if metric in each]
        lines += ["", f"| {score} | {' | '.join(f'`{tap}`' for tap in taps)} |", f"|{'---|' * (len(taps) + 1)}"]
        for name, scores in sets.items():
            lines.append(f"| {name} | {' | '.join(f'{scores[tap][metric][number]:.4g}' for tap in taps)} |")
    return "\n".join(lines).strip() + "\n"


def measure(train: str, heldout: str, extractors: list[str], out: Path, limit: int = 0) -> dict[str, Any]:
    """What the module describes, after each extractor in `out` too.

    Args:
      limit: photographs of each side, evenly from all; 0 for all.
    """
    looks = Looks()
    result: dict[str, Any] = {"train": train, "heldout": heldout, "extractors": {}, "sets": {}}
    for extractor in extractors:
        origin = looks.origin(extractor)

        def known(name: str, path: str, way: str = "", strength: float | None = None, origin: Any = origin) -> Any:
            facts = {"set": name, "path": path, "way": way, "strength": strength, "images": limit}
            facts["extractor"] = origin
            return facts, seen(facts, looks, out)

        reference = known("reference", train)
        facts, features = known("as they are", heldout)
        sets = {"as they are": (facts, features)}
        for way, (_, strengths) in WAYS.items():
            for strength in strengths:
                sets[f"{way} {strength:g}"] = known(f"{way} {strength:g}", heldout, way, strength)
        total = len(features["label"])
        for count in LEFT_OUT:
            stays = features["label"] >= count
            beside = evenly(0, total, total, int(stays.sum()))
            for name, kept in ((f"without {count}", stays), (f"beside {count}", beside)):
                sets[name] = ({**facts, "set": name}, rows_of(features, kept))
        for name, scores in scored(sets, reference, out, extractor).items():
            result["sets"].setdefault(name, {}).update(scores)
        result["extractors"][extractor] = origin
        result["orders"] = orders(result["sets"])
        write_json(out / "orders.json", result)
        write_atomically(out / "orders.md", tables(result["sets"]))
    return result


def main() -> None:
    keep_freed_memory()  # it and the flags: as `fae` begins
    set_flags()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", required=True, help="images, as `fae evaluate --reference` takes them")
    parser.add_argument("--heldout", required=True, help="the same, with labels from 0")
    parser.add_argument("--weights", nargs="+", default=[], metavar="NAME=FILE")
    parser.add_argument("--extractors", nargs="+", default=list(TAPS), choices=list(TAPS))
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--limit", type=int, default=0, help="photographs of each side, evenly from all; 0 = all")
    arguments = parser.parse_args()
    FILES.update(pair.split("=", 1) for pair in arguments.weights)
    EXTRACTORS.update({name: f"{__name__}:{name}" for name in TAPS})
    result = measure(arguments.train, arguments.heldout, arguments.extractors, arguments.out, arguments.limit)
    print(tables(result["sets"]))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
