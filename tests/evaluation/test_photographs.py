"""Scores on real photographs by real networks: the worse a set is made, the worse it scores."""

import functools
import io
import json
import os
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from PIL import Image, ImageFilter

from fae_jax.evaluation.metrics import Batch
from fae_jax.evaluation.metrics.kid import squared_discrepancy
from fae_jax.evaluation.metrics.precision_recall import PrecisionRecall
from fae_jax.extractors import load_extractor
from fae_jax.extractors.moments import Moments, frechet_distance

pytestmark = [
    pytest.mark.slow(seconds=200),
    pytest.mark.real_data,
    pytest.mark.skipif("FAE_REAL_DATA" not in os.environ, reason="FAE_REAL_DATA is not set"),
]
COUNT = 40
FRECHET = ("inception:768", "mobilenet")


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


def blurred(images: np.ndarray, radius: float) -> np.ndarray:
    return np.stack([np.asarray(Image.fromarray(x).filter(ImageFilter.GaussianBlur(radius))) for x in images])


def compressed(images: np.ndarray, quality: int) -> np.ndarray:
    made = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality)
        made.append(np.asarray(Image.open(file)))
    return np.stack(made)


def noisy(images: np.ndarray, deviation: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(size=images.shape)
    return np.clip(images + deviation * noise, 0, 255).astype(np.uint8)


def convolved(x: jax.Array, kernel: np.ndarray, bias: np.ndarray, stride: int = 1, groups: int = 1) -> jax.Array:
    made = lax.conv_general_dilated(
        x,
        jnp.asarray(kernel, jnp.float32),
        (stride, stride),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )
    return made + bias


def mobilenet() -> Callable[[np.ndarray], Mapping[str, jax.Array]]:
    """MobileNetV2 1.0 (arXiv 1801.04381, table 2): pooled 1280 channels and 1001 logits."""
    with np.load(folder() / "weights" / "mobilenet_v2_224.npz") as file:
        weights = {name: file[name] for name in file.files}
    operations = sorted({name.split("/")[0] for name in weights})

    def apply(images: np.ndarray) -> Mapping[str, jax.Array]:
        x, rest = images / 127.5 - 1, iter(operations)

        def convolution(x: jax.Array, stride: int = 1) -> jax.Array:
            name = next(rest)
            kernel = weights[f"{name}/w"]
            if "depthwise" in name:
                return convolved(x, kernel.transpose(1, 2, 0, 3), weights[f"{name}/b"], stride, x.shape[-1])
            return convolved(x, kernel.transpose(1, 2, 3, 0), weights[f"{name}/b"], stride)

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

    return jax.jit(apply)


def vgg() -> Callable[[np.ndarray], Mapping[str, jax.Array]]:
    """VGG16's trunk (arXiv 1409.1556, table 1 D) at a quarter of the size: `conv5_3`, averaged."""
    with np.load(folder() / "weights" / "vgg16_bgr_fp16.npz") as file:
        weights = {name: file[name] for name in file.files}

    def apply(images: np.ndarray) -> Mapping[str, jax.Array]:
        b, y, x, _ = images.shape
        small = images.astype(jnp.float32).reshape(b, y // 4, 4, x // 4, 4, 3).mean((2, 4))
        made = small[..., ::-1] - jnp.array([103.939, 116.779, 123.68])
        for block, depth in enumerate((2, 2, 3, 3, 3), 1):
            if block > 1:
                made = lax.reduce_window(made, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
            for number in range(1, depth + 1):
                name = f"conv{block}_{number}"
                kernel = weights[f"{name}/w"].transpose(2, 3, 1, 0)
                made = jax.nn.relu(convolved(made, kernel, weights[f"{name}/b"]))
        return {"conv5_3": made.mean((1, 2))}

    return jax.jit(apply)


class Networks:
    """The three networks, and what they say of sets of photographs."""

    def __init__(self) -> None:
        weights = folder() / "weights" / "inception_2015_12_05_partial_fp16.npz"
        extractor = load_extractor("inception", str(weights))
        self._inception = functools.partial(jax.jit(extractor.apply), extractor.params)
        self._mobilenet, self._vgg = mobilenet(), vgg()

    def see(self, images: np.ndarray) -> dict[str, np.ndarray]:
        parts = np.split(images, range(20, len(images), 20))
        taps = [self._inception(part) for part in parts]
        names = ("768", "spatial")
        seen = {f"inception:{name}": np.concatenate([each[name] for each in taps]) for name in names}
        named = [self._mobilenet(part) for part in parts]
        seen["mobilenet"] = np.concatenate([each["pooled"] for each in named])
        seen["logits"] = np.concatenate([each["logits"] for each in named])
        seen["vgg"] = np.concatenate([self._vgg(part)["conv5_3"] for part in parts])
        return seen


def distances(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Fréchet distances where there are few enough dimensions; else KID's discrepancy, unbiased for few images."""
    made = {tap: frechet_distance(Moments.of(first[tap]), Moments.of(second[tap])) for tap in FRECHET}
    made["inception:spatial"] = squared_discrepancy(first["inception:spatial"], second["inception:spatial"])
    made["vgg"] = squared_discrepancy(np.log1p(first["vgg"]), np.log1p(second["vgg"]))
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
    assert np.mean(untouched["logits"][:, ten].argmax(1) == labels) > 0.9  # the network is itself

    ways = {
        "blur": [blurred(clean, radius) for radius in (2, 6)],
        "JPEG": [compressed(clean, quality) for quality in (15, 2)],
        "noise": [noisy(clean, deviation) for deviation in (25, 75)],
        "classes": [photographs("imagenette224-val-00000.tar", range(kept))[0] for kept in (5, 1)],
    }
    base = distances(untouched, reference)
    for way, images in ways.items():
        levels = [base, *(distances(networks.see(each), reference) for each in images)]
        for tap in FRECHET if way == "classes" else (*FRECHET, "inception:spatial"):
            values = [level[tap] for level in levels]
            assert values == sorted(values) and values[0] < values[-1], (way, tap, values)
        assert levels[-1]["vgg"] > levels[0]["vgg"], (way, levels)
    fewer = networks.see(ways["classes"][-1])
    assert recall(fewer, reference) < 0.5 * recall(untouched, reference)
