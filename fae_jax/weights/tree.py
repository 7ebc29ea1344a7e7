"""Nested dicts of arrays as safetensors: {"a": {"b": array}} lies in the file as the tensor "a.b"."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from fae_jax.weights.tensors import hash_arrays, open_tensors, write_tensors

_LISTED = 12


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    """{"a": {"b": leaf}} → {"a.b": leaf}, in the order of the keys.

    Raises:
      ValueError: a key holds a dot.
    """
    flat = flatten_dict(dict(tree))
    for path in flat:
        for key in path:
            if "." in key:
                raise ValueError(f"parameter name {key!r} contains a dot, which separates levels in a weights file")
    return {".".join(path): leaf for path, leaf in flat.items()}


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Inverse of `flatten`."""
    return unflatten_dict(dict(flat), sep=".")


def hash_tree(params: Mapping[str, Any]) -> str:
    """SHA-256, hexadecimal, of the names, shapes, dtypes and bytes: that of the file `save_tree` would write."""
    flat = flatten(params)
    return hash_arrays(flat, lambda name: np.asarray(jax.device_get(flat[name])))


def save_tree(path: str | os.PathLike[str], params: Mapping[str, Any]) -> None:
    """Writes a nested dict of arrays as one safetensors file, whole or not at all."""
    write_tensors(path, {name: np.asarray(jax.device_get(leaf)) for name, leaf in flatten(params).items()})


def compare(source: str, expected: Mapping[str, tuple[int, ...]], present: Mapping[str, tuple[int, ...]]) -> None:
    """Compares two sets of names with shapes.

    Raises:
      ValueError: they differ; every missing, extra and misshapen tensor is in the one message (long lists are cut).
    """
    differences = {
        "missing": [name for name in expected if name not in present],
        "extra": [name for name in present if name not in expected],
        "misshapen": [
            f"{name} {list(present[name])} instead of {list(shape)}"
            for name, shape in expected.items()
            if name in present and tuple(present[name]) != tuple(shape)
        ],
    }
    parts = []
    for title, names in differences.items():
        more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
        parts += [f"{len(names)} {title}: {', '.join(names[:_LISTED])}{more}"] if names else []
    if parts:
        raise ValueError(f"{source} does not hold the weights this network needs; {'; '.join(parts)}")


def check_finite(source: str, name: str, array: np.ndarray) -> None:
    """Raises ValueError where a floating-point tensor holds NaN or infinity."""
    if array.dtype.kind not in "biu" and not np.isfinite(array).all():
        raise ValueError(
            f"{source}: tensor {name!r} holds NaN or infinite values; the file is damaged, fetch it again"
        )


def load_tree(path: str | os.PathLike[str], like: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Reads what `save_tree` wrote, as a nested dict of NumPy arrays in the dtypes of the file.

    Args:
      path: a file or a folder.
      like: a nested dict of arrays or `jax.ShapeDtypeStruct`s whose names and shapes the file must have.

    Raises:
      ValueError: names or shapes differ from `like`, or a value is not finite.
    """
    tensors = open_tensors(path)
    if like is not None:
        expected = {name: tuple(leaf.shape) for name, leaf in flatten(like).items()}
        compare(str(path), expected, {name: tensor.shape for name, tensor in tensors.items()})
    flat = {name: tensors.read(name) for name in tensors}
    for name, array in flat.items():
        check_finite(str(path), name, array)
    return unflatten(flat)
