"""Inception v3 of 2015-12-05, the network of the FID (arXiv 1512.00567, 1706.08500), batch norms folded in.

A convolution is followed by a ReLU. A block is branches side by side; in `mixed_3` and `mixed_8`, which halve the
grid, the last branch is a pooling alone. Averages leave out what lies beyond the border, and `mixed_10` pools by
maximum where other Inceptions average. For images of any size, pixels p in 0 … 255:

    x = (resize(p, 299×299) − 128) / 128                                                           (1)
    64, 192    the stem's two max poolings, averaged over the grid
    spatial    the first 7 channels of `mixed_6`, which are those of its first branch; rows, columns, channels
               in this order: 17·17·7 numbers, of which ADM takes the sFID
    768        `mixed_7`, averaged over the grid
    pool_3     `mixed_10`, averaged over the grid: 2048 numbers, of which the FID is taken
    logits     pool_3 W, 1008 classes                                                              (2)
    softmax    softmax(pool_3 W), of which the Inception Score is taken                            (3)

(2) leaves out the bias, as ADM and torch-fidelity (`logits_unbiased`) do. The resize of (1) is that of TensorFlow 1,
without half-pixel centres, in ADM and torch-fidelity; clean-fid's is PIL's bicubic per channel in float.
Sources: openai/guided-diffusion `evaluations/evaluator.py`, toshas/torch-fidelity, mseitzer/pytorch-fid,
GaParmar/clean-fid `cleanfid/resize.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from fae_jax.extractors import Extractor, check_images
from fae_jax.extractors.inception_files import RELEASE, read_params
from fae_jax.nn.resample import resize, resize_tf1
from fae_jax.weights import hash_tree

SIDE, SPATIAL = 299, 7
Params = Mapping[str, Mapping[str, Array]]
Step = tuple["Conv", ...]  # convolutions of one input, side by side


@dataclasses.dataclass(frozen=True)
class Conv:
    """A convolution: its name behind the block's in TensorFlow and in torchvision, kernel, channels out."""

    name: str
    published: str
    rows: int
    columns: int
    width: int
    stride: int = 1
    padding: str = "SAME"


@dataclasses.dataclass(frozen=True)
class Branch:
    """A pooling, where there is one, then steps one after the other."""

    steps: tuple[Step, ...]
    pool: str = ""


@dataclasses.dataclass(frozen=True)
class Block:
    """Branches side by side, and the block's own name in torchvision."""

    published: str
    branches: tuple[Branch, ...]


def _chain(*convolutions: Conv, pool: str = "") -> Branch:
    return Branch(tuple((each,) for each in convolutions), pool)


def _block_35(published: str, pooled: int) -> Block:
    return Block(
        published,
        (
            _chain(Conv("conv", "branch1x1", 1, 1, 64)),
            _chain(Conv("tower_conv", "branch5x5_1", 1, 1, 48), Conv("tower_conv_1", "branch5x5_2", 5, 5, 64)),
            _chain(
                Conv("tower_1_conv", "branch3x3dbl_1", 1, 1, 64),
                Conv("tower_1_conv_1", "branch3x3dbl_2", 3, 3, 96),
                Conv("tower_1_conv_2", "branch3x3dbl_3", 3, 3, 96),
            ),
            _chain(Conv("tower_2_conv", "branch_pool", 1, 1, pooled), pool="average"),
        ),
    )


def _block_17(published: str, c: int) -> Block:
    return Block(
        published,
        (
            _chain(Conv("conv", "branch1x1", 1, 1, 192)),
            _chain(
                Conv("tower_conv", "branch7x7_1", 1, 1, c),
                Conv("tower_conv_1", "branch7x7_2", 1, 7, c),
                Conv("tower_conv_2", "branch7x7_3", 7, 1, 192),
            ),
            _chain(
                Conv("tower_1_conv", "branch7x7dbl_1", 1, 1, c),
                Conv("tower_1_conv_1", "branch7x7dbl_2", 7, 1, c),
                Conv("tower_1_conv_2", "branch7x7dbl_3", 1, 7, c),
                Conv("tower_1_conv_3", "branch7x7dbl_4", 7, 1, c),
                Conv("tower_1_conv_4", "branch7x7dbl_5", 1, 7, 192),
            ),
            _chain(Conv("tower_2_conv", "branch_pool", 1, 1, 192), pool="average"),
        ),
    )


def _block_8(published: str, pool: str) -> Block:
    def split(tower: str, theirs: str) -> Step:
        mixed = f"{tower}_mixed_conv"
        return Conv(mixed, f"{theirs}a", 1, 3, 384), Conv(f"{mixed}_1", f"{theirs}b", 3, 1, 384)

    return Block(
        published,
        (
            _chain(Conv("conv", "branch1x1", 1, 1, 320)),
            Branch(((Conv("tower_conv", "branch3x3_1", 1, 1, 384),), split("tower", "branch3x3_2"))),
            Branch(
                (
                    (Conv("tower_1_conv", "branch3x3dbl_1", 1, 1, 448),),
                    (Conv("tower_1_conv_1", "branch3x3dbl_2", 3, 3, 384),),
                    split("tower_1", "branch3x3dbl_3"),
                )
            ),
            _chain(Conv("tower_2_conv", "branch_pool", 1, 1, 192), pool=pool),
        ),
    )


STEM = {
    "conv": Conv("conv", "Conv2d_1a_3x3", 3, 3, 32, 2, "VALID"),
    "conv_1": Conv("conv_1", "Conv2d_2a_3x3", 3, 3, 32, 1, "VALID"),
    "conv_2": Conv("conv_2", "Conv2d_2b_3x3", 3, 3, 64),
    "conv_3": Conv("conv_3", "Conv2d_3b_1x1", 1, 1, 80, 1, "VALID"),
    "conv_4": Conv("conv_4", "Conv2d_4a_3x3", 3, 3, 192, 1, "VALID"),
}
POOLED = ("conv_2", "conv_4")  # with a max pooling behind them
BLOCKS = {
    "mixed": _block_35("Mixed_5b", 32),
    "mixed_1": _block_35("Mixed_5c", 64),
    "mixed_2": _block_35("Mixed_5d", 64),
    "mixed_3": Block(
        "Mixed_6a",
        (
            _chain(Conv("conv", "branch3x3", 3, 3, 384, 2, "VALID")),
            _chain(
                Conv("tower_conv", "branch3x3dbl_1", 1, 1, 64),
                Conv("tower_conv_1", "branch3x3dbl_2", 3, 3, 96),
                Conv("tower_conv_2", "branch3x3dbl_3", 3, 3, 96, 2, "VALID"),
            ),
            Branch((), "halving"),
        ),
    ),
    "mixed_4": _block_17("Mixed_6b", 128),
    "mixed_5": _block_17("Mixed_6c", 160),
    "mixed_6": _block_17("Mixed_6d", 160),
    "mixed_7": _block_17("Mixed_6e", 192),
    "mixed_8": Block(
        "Mixed_7a",
        (
            _chain(
                Conv("tower_conv", "branch3x3_1", 1, 1, 192),
                Conv("tower_conv_1", "branch3x3_2", 3, 3, 320, 2, "VALID"),
            ),
            _chain(
                Conv("tower_1_conv", "branch7x7x3_1", 1, 1, 192),
                Conv("tower_1_conv_1", "branch7x7x3_2", 1, 7, 192),
                Conv("tower_1_conv_2", "branch7x7x3_3", 7, 1, 192),
                Conv("tower_1_conv_3", "branch7x7x3_4", 3, 3, 192, 2, "VALID"),
            ),
            Branch((), "halving"),
        ),
    ),
    "mixed_9": _block_8("Mixed_7b", "average"),
    "mixed_10": _block_8("Mixed_7c", "maximum"),
}
ORDER = (*STEM, *BLOCKS, "softmax")
TAPS = {  # tap → the last of ORDER that it needs
    "64": "conv_2",
    "192": "conv_4",
    "spatial": "mixed_6",
    "768": "mixed_7",
    "pool_3": "mixed_10",
    "logits": "softmax",
    "softmax": "softmax",
}


def layers() -> Iterator[tuple[str, str, str, tuple[int, ...]]]:
    """(place in `ORDER`, name, torchvision's name, shape of the kernel) of every layer, first to last."""
    width = 3
    for conv in STEM.values():
        yield conv.name, conv.name, conv.published, (conv.rows, conv.columns, width, conv.width)
        width = conv.width
    for name, block in BLOCKS.items():
        out = 0
        for branch in block.branches:
            inner = width
            for step in branch.steps:
                for conv in step:
                    shape = (conv.rows, conv.columns, inner, conv.width)
                    yield name, f"{name}_{conv.name}", f"{block.published}.{conv.published}", shape
                inner = sum(conv.width for conv in step)
            out += inner
        width = out
    yield "softmax", "softmax", "fc", (width, 1008)


def _convolve(params: Params, name: str, conv: Conv, x: Array) -> Array:
    layout = ("NHWC", "HWIO", "NHWC")
    layer = params[name]
    strides = (conv.stride, conv.stride)
    out = jax.lax.conv_general_dilated(
        x, layer["kernel"], strides, conv.padding, dimension_numbers=layout, precision="highest"
    )
    return jax.nn.relu(out + layer["bias"])


def _pool(kind: str, x: Array) -> Array:
    """3×3 windows: `average` and `maximum` keep the grid, `halving` is a maximum of every second one."""
    window = (1, 3, 3, 1)
    if kind == "halving":
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, (1, 2, 2, 1), "VALID")
    if kind == "maximum":
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, (1, 1, 1, 1), "SAME")
    where = (jax.lax.add, window, (1, 1, 1, 1), "SAME")
    return jax.lax.reduce_window(x, 0.0, *where) / jax.lax.reduce_window(jnp.ones_like(x[:1, ..., :1]), 0.0, *where)


def _block(params: Params, name: str, x: Array) -> Array:
    outputs = []
    for branch in BLOCKS[name].branches:
        y = _pool(branch.pool, x) if branch.pool else x
        for step in branch.steps:
            y = jnp.concatenate([_convolve(params, f"{name}_{conv.name}", conv, y) for conv in step], axis=-1)
        outputs.append(y)
    return jnp.concatenate(outputs, axis=-1)


def taps(params: Params, x: Float[Array, "b y x 3"], available: Collection[str]) -> dict[str, Array]:
    """The taps `available` of inputs x of (1), each (b, d)."""
    made: dict[str, Array] = {}
    needed = {TAPS[tap] for tap in available}
    for name in ORDER:
        if not needed:
            return made
        if name in BLOCKS:
            x = _block(params, name, x)
        elif name in STEM:
            x = _convolve(params, name, STEM[name], x)
            x = _pool("halving", x) if name in POOLED else x
        else:
            logits = jnp.matmul(x.mean((1, 2)), params[name]["kernel"], precision="highest")
            made |= {"logits": logits, "softmax": jax.nn.softmax(logits)}
        for tap, last in TAPS.items():
            if last == name and tap in available and tap not in made:
                made[tap] = x[..., :SPATIAL].reshape(len(x), -1) if tap == "spatial" else x.mean((1, 2))
        needed.discard(name)
    return made


def _tf1(images: Shaped[Array, "b y x 3"]) -> Float[Array, "b 299 299 3"]:
    return resize_tf1(images, (SIDE, SIDE))


def _clean(images: Shaped[Array, "b y x 3"]) -> Float[Array, "b 299 299 3"]:
    return jnp.clip(resize(images, (SIDE, SIDE), "bicubic", antialias=True), 0, 255)


@dataclasses.dataclass(frozen=True)
class Inception:
    """A kind of extractor: this network behind a way to resize."""

    resized: Callable[[Array], Array]
    words: str
    source: str = RELEASE.urls[0]

    def pull(self, file: Path | None = None) -> tuple[Path, int]:
        """Brings the published weights, once, or those in `file`: their folder, and bytes fetched just now."""
        return RELEASE.pull(lambda path: read_params(path, list(layers()))[0], file)

    def __call__(self, name: str, weights: str) -> Extractor:
        """See `fae_jax.extractors.load_extractor`."""
        params, missing = read_params(weights or RELEASE.folder(name), list(layers()))
        lacks = {}
        for tap, last in TAPS.items():
            needed = ORDER[: ORDER.index(last) + 1]
            absent = [layer for layer, place in missing.items() if place in needed]
            if absent:
                lacks[tap] = f"the weights lack {', '.join(absent)}: bring them whole by `fae weights pull {name}`"
        available = frozenset(set(TAPS) - set(lacks))

        def apply(params: Params, images: Any) -> dict[str, Array]:
            check_images(name, images)
            return taps(params, (self.resized(images) - 128) / 128, available)

        return Extractor(
            name=name,
            variant=f"Inception 2015-12-05, {self.words}",
            weights_hash=hash_tree(params),
            params=jax.tree.map(jnp.asarray, params),
            apply=apply,
            lacks=lacks,
        )


INCEPTION = Inception(_tf1, "TF1 bilinear resize")
INCEPTION_CLEAN = Inception(_clean, "antialiased bicubic resize (clean-fid)")
