"""Inception's weights as they are published, and as they are kept.

A batch norm behind a convolution, y = (W x − m) / √(v + ε) γ + β with ε = 10⁻³, becomes part of it:

    kernel = W γ / √(v + ε),     bias = β − m γ / √(v + ε)                                         (1)

in float64. Four layouts are read, each by its names: ours, a folded one with TensorFlow's names and TensorFlow's
graph itself with kernels (rows, columns, in, out), and torchvision's with (out, in, rows, columns). The graph's names
have a slash before each part, `mixed_9/tower/mixed/conv_1`. Torchvision's are paired with them as in
torch-fidelity's `utils/util_convert_inception_weights.py`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fae_jax.weights.releases import Release, read_arrays
from fae_jax.weights.tree import check_finite, compare

RELEASE = Release(
    name="inception",
    urls=(
        "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
        "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    ),
    sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
)
EPSILON = 1e-3
Shapes = dict[str, tuple[int, ...]]
Layer = tuple[str, str, str, tuple[int, ...]]  # see `inception.layers`


def _plain(separator: str, kernel: str, bias: str) -> tuple[Callable[..., Shapes], Callable[..., Any]]:
    def shapes(name: str, _: str, shape: tuple[int, ...]) -> Shapes:
        return {f"{name}{separator}{kernel}": shape, f"{name}{separator}{bias}": shape[-1:]}

    return shapes, lambda tensors: tensors


def _graph_shapes(name: str, _: str, shape: tuple[int, ...]) -> Shapes:
    if len(shape) == 2:
        return {f"{name}/weights": shape, f"{name}/biases": shape[-1:]}
    name = re.sub(r"(?<=.)_(?=tower|mixed|conv)", "/", name)
    norm = ("gamma", "beta", "moving_mean", "moving_variance")
    return {f"{name}/conv2d_params": shape} | {f"{name}/batchnorm/{each}": shape[-1:] for each in norm}


def _torch_shapes(_: str, published: str, shape: tuple[int, ...]) -> Shapes:
    if len(shape) == 2:
        return {f"{published}.weight": shape[::-1], f"{published}.bias": shape[-1:]}
    norm = ("weight", "bias", "running_mean", "running_var")
    kernel = {f"{published}.conv.weight": (shape[3], shape[2], shape[0], shape[1])}
    return kernel | {f"{published}.bn.{name}": shape[-1:] for name in norm}


def _folded(tensors: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(1) where there is a batch norm."""
    if len(tensors) == 2:
        return tensors[0], tensors[1]
    kernel, gamma, beta, mean, variance = (tensor.astype(np.float64) for tensor in tensors)
    scale = gamma / np.sqrt(variance + EPSILON)
    return kernel * scale, beta - mean * scale


def _from_torch(tensors: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    kernel, *others = tensors
    return _folded([kernel.T if kernel.ndim == 2 else kernel.transpose(2, 3, 1, 0), *others])


LAYOUTS: dict[str, tuple[Callable[..., Shapes], Callable[..., Any]]] = {  # first tensor → shapes, and the way here
    "conv.kernel": _plain(".", "kernel", "bias"),
    "conv/w": _plain("/", "w", "b"),
    "conv/conv2d_params": (_graph_shapes, _folded),
    "Conv2d_1a_3x3.conv.weight": (_torch_shapes, _from_torch),
}


def read_params(
    path: str | os.PathLike[str], layers: Sequence[Layer]
) -> tuple[dict[str, dict[str, np.ndarray]], Mapping[str, str]]:
    """(parameters in float32, layers that the file lacks with their places) of a file in one of `LAYOUTS`.

    Raises:
      FileNotFoundError: it is not there.
      ValueError: it is damaged, or of another network: tensors are misshapen, or there are others.
    """
    tensors = read_arrays(path)
    first = next((first for first in LAYOUTS if first in tensors), None)
    if first is None:
        raise ValueError(
            f"{path} holds no weights of Inception 2015-12-05: it has none of {', '.join(LAYOUTS)}; "
            "bring them by `fae weights pull inception`"
        )
    shapes, read = LAYOUTS[first]
    expected: Shapes = {}
    missing: dict[str, str] = {}
    for place, name, published, shape in layers:
        parts = shapes(name, published, shape)
        if not any(part in tensors for part in parts):
            missing[name] = place
            continue
        expected |= parts
    counted = {name: array.shape for name, array in tensors.items() if not name.endswith("num_batches_tracked")}
    compare(str(path), expected, counted)
    params = {}
    for _, name, published, shape in layers:
        if name in missing:
            continue
        held = read([tensors[part] for part in shapes(name, published, shape)])
        kernel, bias = (np.ascontiguousarray(part, np.float32) for part in held)
        check_finite(str(path), f"{name}.kernel", kernel)
        check_finite(str(path), f"{name}.bias", bias)
        params[name] = {"kernel": kernel, "bias": bias}
    return params, missing
