"""Nested dicts of arrays as safetensors: {"a": {"b": array}} lies in the file as the tensor "a.b"."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from fae_jax.weights.tensors import Tensors, describe, open_tensors, write_tensors

_SHOWN = 12


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": leaf}} → {"a.b": leaf}, in the order of the keys.

    Raises:
      ValueError: a key holds a dot.
    """
    flat = {}
    for key, value in tree.items():
        if "." in key:
            raise ValueError(f"parameter name {key!r} holds a dot, which separates levels in a weights file")
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Inverse of `flatten`."""
    tree: dict[str, Any] = {}
    for name, leaf in flat.items():
        *path, last = name.split(".")
        node = tree
        for key in path:
            node = node.setdefault(key, {})
        node[last] = leaf
    return tree


def hash_tree(params: Mapping[str, Any]) -> str:
    """SHA-256, hexadecimal, of the names, shapes, dtypes and bytes: that of the file `save_tree` would write."""
    digest = hashlib.sha256()
    flat = flatten(params)
    for name in sorted(flat):
        array = np.ascontiguousarray(jax.device_get(flat[name]))
        digest.update(describe(name, np.shape(flat[name]), array.dtype))
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def save_tree(
    path: str | os.PathLike[str], params: Mapping[str, Any], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes a nested dict of arrays as one safetensors file, whole or not at all."""
    write_tensors(path, {name: np.asarray(jax.device_get(leaf)) for name, leaf in flatten(params).items()}, metadata)


def compare(source: str, wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> None:
    """Compares two sets of names with shapes.

    Raises:
      ValueError: they differ; every missing, extra and misshapen tensor is in the one message (long lists are cut).
    """

    def listed(title: str, lines: list[str]) -> str:
        more = f" and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
        return f"{len(lines)} {title}: {', '.join(lines[:_SHOWN])}{more}"

    missing = [name for name in wanted if name not in found]
    extra = [name for name in found if name not in wanted]
    misshapen = [
        f"{name} {list(found[name])} instead of {list(shape)}"
        for name, shape in wanted.items()
        if name in found and tuple(found[name]) != tuple(shape)
    ]
    parts = [
        listed(title, lines)
        for title, lines in (("missing", missing), ("extra", extra), ("misshapen", misshapen))
        if lines
    ]
    if parts:
        raise ValueError(f"{source} does not hold the weights this network needs; {'; '.join(parts)}")


def check_finite(source: str, name: str, array: np.ndarray) -> None:
    """Raises ValueError where a floating-point tensor holds NaN or infinity."""
    if array.dtype.kind != "b" and array.dtype.kind not in "iu" and not np.isfinite(array).all():
        raise ValueError(
            f"{source}: tensor {name!r} holds NaN or infinite values; the file is damaged, fetch it again"
        )


def load_tree(path: str | os.PathLike[str] | Tensors, like: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Reads what `save_tree` wrote, as a nested dict of NumPy arrays in the dtypes of the file.

    Args:
      path: a file, a folder, or tensors that are open already.
      like: a nested dict of arrays or `jax.ShapeDtypeStruct`s that says which names and shapes must be there.

    Raises:
      ValueError: names or shapes differ from `like`, or a value is not finite.
    """
    tensors = path if isinstance(path, Tensors) else open_tensors(path)
    source = "the file" if isinstance(path, Tensors) else str(path)
    if like is not None:
        wanted = {name: tuple(leaf.shape) for name, leaf in flatten(like).items()}
        compare(source, wanted, {name: tensor.shape for name, tensor in tensors.items()})
    flat = {}
    for name in tensors:
        flat[name] = tensors.read(name)
        check_finite(source, name, flat[name])
    return unflatten(flat)
