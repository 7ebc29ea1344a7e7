"""Scores on real photographs by real networks: the worse a set is made, the worse it scores."""

import functools
import json
import os
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from running import ROOT

from fae_jax.evaluation.metrics import Batch
from fae_jax.evaluation.metrics.kid import squared_discrepancy
from fae_jax.evaluation.metrics.precision_recall import PrecisionRecall
from fae_jax.extractors.moments import Moments, frechet_distance

sys.path.append(str(ROOT / "benchmarks"))

import orders  # noqa: E402

pytestmark = [
    pytest.mark.slow(seconds=200),
    pytest.mark.real_data,
    pytest.mark.skipif("FAE_REAL_DATA" not in os.environ, reason="FAE_REAL_DATA is not set"),
]
COUNT = 40
FRECHET = ("inception:768", "mobilenet_v2:pooled")


def folder() -> Path:
    return Path(os.environ["FAE_REAL_DATA"])


def photographs(shard: str, classes: range, skip: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """COUNT photographs of some classes, evenly from a shard; and their labels."""
    images, labels = [], []
    with tarfile.open(folder() / "images" / shard) as tar:
        members = {member.name: member for member in tar.getmembers()}
        every = {name: int(tar.extractfile(name[:-3] + "cls").read()) for name in members if name.endswith(".jpg")}
        names = [name for name, label in every.items() if label in classes]
        for name in names[skip :: len(names) // COUNT][:COUNT]:
            images.append(np.asarray(Image.open(tar.extractfile(name)).convert("RGB")))
            labels.append(every[name])
    return np.stack(images), np.array(labels)


class Networks:
    """The three networks, and what they say of sets of photographs."""

    def __init__(self) -> None:
        files = {
            "inception": "inception_2015_12_05_partial_fp16.npz",
            "mobilenet_v2": "mobilenet_v2_224.npz",
            "vgg16": "vgg16_bgr_fp16.npz",
        }
        kinds = {"vgg16": functools.partial(orders.vgg16, shrunk=4)}
        self._run = {}
        for name, file in files.items():
            extractor = kinds.get(name, getattr(orders, name))(name, str(folder() / "weights" / file))
            self._run[name] = functools.partial(jax.jit(extractor.apply), extractor.params)

    def see(self, images: np.ndarray) -> dict[str, np.ndarray]:
        parts, seen = np.split(images, range(20, len(images), 20)), {}
        for name, run in self._run.items():
            taps = [run(part) for part in parts]
            seen |= {f"{name}:{tap}": np.concatenate([each[tap] for each in taps]) for tap in taps[0]}
        return seen


def distances(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Fréchet distances where there are few enough dimensions; else KID's discrepancy, unbiased for few images."""
    made = {tap: frechet_distance(Moments.of(first[tap]), Moments.of(second[tap])) for tap in FRECHET}
    made["inception:spatial"] = squared_discrepancy(first["inception:spatial"], second["inception:spatial"])
    made["vgg16"] = squared_discrepancy(*(np.log1p(each["vgg16:conv5_3"]) for each in (first, second)))
    return made


class PrecisionRecallOf768(PrecisionRecall):
    """Of the deepest tap that these weights have."""

    tap = "inception:768"


def recall(samples: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray]) -> float:
    sides = []
    for seen in (samples, reference):
        metric, rows = PrecisionRecallOf768(), seen["inception:768"]
        images = np.zeros((len(rows), 8, 8, 3), np.uint8)
        labels = np.zeros(len(rows), int)
        metric.update(Batch(images=images, labels=labels, look=lambda _, rows=rows: {"768": rows}))
        sides.append(metric)
    return sides[0].result({"reference": sides[1]})["precision_recall"]["recall"]


def test_what_makes_photographs_worse_makes_distances_larger():
    networks = Networks()
    everything = range(10)
    clean, labels = photographs("imagenette224-val-00000.tar", everything)
    reference = networks.see(photographs("imagenette224-train-00000.tar", everything)[0])
    untouched = networks.see(clean)

    classes = json.loads((folder() / "images" / "classes.json").read_text())
    ten = 1 + np.array([entry["imagenet_index"] for entry in classes])
    assert np.mean(untouched["mobilenet_v2:logits"][:, ten].argmax(1) == labels) > 0.9  # the network is itself

    ways = {
        way: [
            np.stack([orders.WAYS[way][0](image, strength, number) for number, image in enumerate(clean)])
            for strength in strengths
        ]
        for way, strengths in (("blur", (2, 6)), ("JPEG", (15, 2)), ("noise", (25, 75)))
    }
    ways |= {
        "classes": [photographs("imagenette224-val-00000.tar", range(kept))[0] for kept in (5, 1)],
    }
    base = distances(untouched, reference)
    for way, images in ways.items():
        levels = [base, *(distances(networks.see(each), reference) for each in images)]
        for tap in FRECHET if way == "classes" else (*FRECHET, "inception:spatial"):
            values = [level[tap] for level in levels]
            assert values == sorted(values) and values[0] < values[-1], (way, tap, values)
        assert levels[-1]["vgg16"] > levels[0]["vgg16"], (way, levels)
    fewer = networks.see(ways["classes"][-1])
    assert recall(fewer, reference) < 0.5 * recall(untouched, reference)
