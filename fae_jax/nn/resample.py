"""Resampling an image or a position table along one axis, as a matrix: out = R in.

Output cell i has its centre at input coordinate u_i = (i + ½) / s − ½, where s is the scale. With a kernel k

    R_ij ∝ k(u_i − j)              interpolation                             (1)
    R_ij ∝ k(min(s, 1) (u_i − j))  with antialiasing                         (2)

Kernels are the triangle and Keys' cubic with parameter a (PyTorch's bicubic has a = −0.75 without antialiasing;
PIL, and PyTorch with antialiasing, have a = −0.5), and Lanczos of three lobes. At the border (1) repeats the last
cell and (2) leaves out what lies outside and divides by the sum that is left, both as PyTorch does.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

KINDS = ("nearest", "bilinear", "bicubic", "lanczos")
_BITS = 22  # fractional bits of PIL's weights
_SUPPORT = {"bilinear": 1.0, "bicubic": 2.0, "lanczos": 3.0}


def _kernel(kind: str, x: np.ndarray, a: float) -> np.ndarray:
    x = np.abs(x)
    if kind == "bilinear":
        return np.maximum(1.0 - x, 0.0)
    if kind == "lanczos":
        return np.where(x < 3.0, np.sinc(x) * np.sinc(x / 3.0), 0.0)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


@functools.lru_cache(maxsize=256)
def resampling_matrix(
    source: int, target: int, kind: str, *, antialias: bool, scale: float | None = None, dtype: Any = np.float32
) -> Float[np.ndarray, "target source"]:
    """R of equation (2) where `antialias`, else of (1).

    Args:
      source, target: number of cells before and after.
      kind: one of `KINDS`.
      scale: s; target / source where None.

    Raises:
      ValueError: `kind` is unknown, or `antialias` is asked of `nearest` or refused to `lanczos`.
    """
    if kind not in KINDS:
        raise ValueError(f"resampling {kind!r} is unknown; choose one of {', '.join(KINDS)}")
    if (kind == "nearest" and antialias) or (kind == "lanczos" and not antialias):
        raise ValueError(f"resampling {kind!r} is not defined with antialias={antialias}")
    scale = target / source if scale is None else scale
    matrix = np.zeros((target, source))
    if kind == "nearest":
        chosen = np.minimum(np.floor(np.arange(target) / scale).astype(int), source - 1)
        matrix[np.arange(target), chosen] = 1.0
        return matrix.astype(dtype)
    shrink = min(scale, 1.0) if antialias else 1.0
    centre = (np.arange(target) + 0.5) / scale - 0.5
    if kind == "bilinear" and not antialias:
        centre = np.maximum(centre, 0.0)
    reach = int(np.ceil(_SUPPORT[kind] / shrink)) + 1
    taps = np.floor(centre).astype(int)[:, None] + np.arange(-reach, reach + 1)
    weight = _kernel(kind, shrink * (taps - centre[:, None]), a=-0.5 if antialias else -0.75)
    if antialias:
        weight = np.where((taps >= 0) & (taps < source), weight, 0.0)
    weight = weight / weight.sum(axis=1, keepdims=True)
    rows = np.broadcast_to(np.arange(target)[:, None], taps.shape)
    np.add.at(matrix, (rows, np.clip(taps, 0, source - 1)), weight)
    return matrix.astype(dtype)


def resize(
    images: Shaped[Array, "b y x c"], size: tuple[int, int], kind: str, *, antialias: bool = True
) -> Float[Array, "b u v c"]:
    """Images resampled to `size` = (rows, columns) in float32, as `torch.nn.functional.interpolate` does it."""
    images = images.astype(jnp.float32)
    if images.shape[1] != size[0]:
        rows = resampling_matrix(images.shape[1], size[0], kind, antialias=antialias)
        images = jnp.einsum("uy,byxc->buxc", rows, images, precision="highest")
    if images.shape[2] != size[1]:
        columns = resampling_matrix(images.shape[2], size[1], kind, antialias=antialias)
        images = jnp.einsum("vx,byxc->byvc", columns, images, precision="highest")
    return images


def resize_rounded(images: Shaped[Array, "b y x c"], size: tuple[int, int], kind: str) -> Float[Array, "b u v c"]:
    """Images resampled to `size` with antialiasing in PIL's whole numbers, 0 … 255: weights of 22 bits, columns
    before rows, and each of the two rounded to 8 bits.

    Of images that are not higher than wide it is PIL's bit for bit; of others Pillow 13 takes the rows first. Of
    float32 images the values are those of the nearest whole numbers, and the slope is that of `resize`.
    """
    if jnp.issubdtype(images.dtype, jnp.floating):
        smooth = resize(images, size, kind)
        whole = resize_rounded(jnp.round(jax.lax.stop_gradient(images)).astype(jnp.uint8), size, kind)
        return smooth + jax.lax.stop_gradient(whole - smooth)
    values = images.astype(jnp.int32)
    for axis in (2, 1):
        source, target = values.shape[axis], size[axis - 1]
        if source == target:
            continue
        exact = resampling_matrix(source, target, kind, antialias=True, dtype=np.float64) * 2**_BITS
        weights = np.trunc(exact + np.copysign(0.5, exact)).astype(np.int32)
        first = (weights != 0).argmax(1)
        reach = int((source - (weights != 0)[:, ::-1].argmax(1) - first).max())
        total = jnp.int32(2 ** (_BITS - 1))
        for step in range(reach):
            cells = np.minimum(first + step, source - 1)
            weight = np.where(first + step < source, weights[np.arange(target), cells], 0)
            total = total + values.take(cells, axis) * np.expand_dims(weight, tuple(range(1, 4 - axis)))
        values = jnp.clip(total >> _BITS, 0, 255)
    return values.astype(jnp.float32)


def resize_tf1(images: Shaped[Array, "b y x c"], size: tuple[int, int]) -> Float[Array, "b u v c"]:
    """Images resampled to `size` as TensorFlow 1's `resize_bilinear` does it, without half-pixel centres, in float32:

        u = i · source / target,   out_i = in_⌊u⌋ + (in_⌊u⌋₊₁ − in_⌊u⌋) (u − ⌊u⌋)               (3)

    The last cell is repeated. Columns come first.
    """
    images = images.astype(jnp.float32)
    for axis in (2, 1):
        source, target = images.shape[axis], size[axis - 1]
        scale = np.float32(source) / np.float32(target)  # as TensorFlow's kernel: also its products are float32
        centre = np.arange(target, dtype=np.float32) * scale
        low = np.minimum(centre.astype(np.int32), source - 1)
        weight = np.expand_dims(centre - low.astype(np.float32), tuple(range(1, 4 - axis)))
        before, after = (images.take(cells, axis=axis) for cells in (low, np.minimum(low + 1, source - 1)))
        images = before + (after - before) * weight
    return images


def resize_table(
    table: Float[Array, "n d"],
    source: tuple[int, int],
    target: tuple[int, int],
    kind: str,
    *,
    antialias: bool = False,
    offset: float = 0.0,
) -> Float[Array, "m d"]:
    """A position table for the grid `source` resampled to the grid `target`, in float32.

    `offset` > 0 is DINOv2's first way: the scale is (target + offset) / source rather than target / source.
    Where the grids are equal the table is returned as it is.
    """
    if source == target:
        return table
    grid = table.reshape(*source, -1).astype(jnp.float32)
    rows, columns = (
        resampling_matrix(s, t, kind, antialias=antialias, scale=(t + offset) / s)
        for s, t in zip(source, target, strict=True)
    )
    return jnp.einsum("uy,vx,yxd->uvd", rows, columns, grid, precision="highest").reshape(-1, table.shape[-1])
