"""Which array lies where: (regex on its path → tactic), the first that matches; and where tagged activations lie.

Tactics for parameters, their moments and averages:

* `replicate` -- whole on every device.
* `fsdp`      -- the longest axis that all of `fsdp` divides is split over it. Where there is none, and `fsdp` is two
  axes of the mesh, the longest that its first divides is split over that, the longest of the others over the rest.
* `columns`   -- the last axis is split over `tensor`: what a linear puts out; another axis as in `fsdp`.
* `rows`      -- the last axis but one is split over `tensor`: what a linear sums over; another as in `fsdp`.

`columns` followed by `rows` is a pair of products that needs one sum between devices (Megatron, arXiv 1909.08053).
Arrays below `MINIMUM` values stay whole, since gathering them costs more than they take.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from fae_jax.nn.tags import placing
from fae_jax.parallel.mesh import BATCH_AXES, FSDP_AXES, present

P = ParamSpec("P")
T = TypeVar("T")

RULES: tuple[tuple[str, str], ...] = (
    (r"(qkv|query|key|value|skip|gate_and_value|hidden|joint)/kernel$", "columns"),
    (r"joint_kernel$", "columns"),
    (r"(attention|feed_forward)/out/kernel$|(text|image)_out/kernel$|moments/kernel$", "rows"),
    (r"modulation/kernel$|time/(hidden|out)(_\d)?/kernel$", "columns"),
    (r".*", "fsdp"),
)
MINIMUM = 2**14

# tag (fae_jax.nn.tags) → what each axis is split over
ACTIVATIONS: dict[str, tuple[Any, ...]] = {
    "stream": (BATCH_AXES, None, None),
    "modulation": (BATCH_AXES, None),
    "qkv": (BATCH_AXES, None, None, "tensor", None),
    "attended": (BATCH_AXES, None, "tensor", None),
    "feed_forward_input": (BATCH_AXES, None, None),
    "gate_and_value": (BATCH_AXES, None, None, "tensor"),
    "hidden": (BATCH_AXES, None, "tensor"),
}


def path_name(path: tuple[Any, ...]) -> str:
    """A key path of jax.tree_util as a/b/c."""
    return "/".join(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path)


def _specification(
    name: str, shape: tuple[int, ...], mesh: Mesh | AbstractMesh, rules: tuple[tuple[str, str], ...]
) -> PartitionSpec:
    tactic = next(tactic for pattern, tactic in rules if re.search(pattern, name))
    if tactic == "replicate" or math.prod(shape) < MINIMUM:
        return PartitionSpec()
    split: list[str | tuple[str, ...] | None] = [None] * len(shape)
    for_tensor = {"columns": -1, "rows": -2}.get(tactic)
    tensor = mesh.shape["tensor"]
    if for_tensor is not None and tensor > 1 and len(shape) >= -for_tensor and shape[for_tensor] % tensor == 0:
        split[for_tensor] = "tensor"
    fsdp = present(mesh, FSDP_AXES)

    def put(axes: tuple[str, ...]) -> bool:
        """Splits the longest free axis that `axes` divide over them; says whether there is one."""
        size = math.prod(mesh.shape[axis] for axis in axes)
        free = [axis for axis, extent in enumerate(shape) if size > 1 and split[axis] is None and extent % size == 0]
        if free:
            split[max(free, key=lambda axis: shape[axis])] = axes if len(axes) > 1 else axes[0]
        return bool(free)

    if not put(fsdp) and len(fsdp) > 1:
        for axis in fsdp:
            put((axis,))
    return PartitionSpec(*split) if any(split) else PartitionSpec()


def shardings(shapes: Any, mesh: Mesh | AbstractMesh, rules: tuple[tuple[str, str], ...] = RULES) -> Any:
    """A sharding for each leaf of a tree of arrays or shapes, optimizer states and averages included."""

    def choose(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        return NamedSharding(mesh, _specification(path_name(path), leaf.shape, mesh, rules))

    return jax.tree_util.tree_map_with_path(choose, shapes)


def _activation(mesh: Mesh, shape: tuple[int, ...], name: str) -> PartitionSpec:
    """`ACTIVATIONS` for an array of that shape; an axis that does not divide stays whole."""

    def fits(extent: int, axes: Any) -> Any:
        if axes is None:
            return None
        named = present(mesh, axes if isinstance(axes, tuple) else (axes,))
        return named if extent % math.prod(mesh.shape[axis] for axis in named) == 0 else None

    return PartitionSpec(*(fits(extent, axes) for extent, axes in zip(shape, ACTIVATIONS[name], strict=True)))


def place_activation(mesh: Mesh, x: Array, name: str) -> Array:
    """Constrains a tagged array as `ACTIVATIONS` says."""
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, _activation(mesh, x.shape, name)))


def spread_over(mesh: Mesh, function: Callable[..., Array], arrays: tuple[Array, ...], name: str) -> Array:
    """`function` run by each device on its own part of arrays that lie like the tag `name`; so does the result."""
    places = tuple(_activation(mesh, x.shape, name) for x in arrays)
    return jax.shard_map(function, mesh=mesh, in_specs=places, out_specs=places[0], check_vma=False)(*arrays)


def constrained(function: Callable[P, T], mesh: Mesh) -> Callable[P, T]:
    """`function` for `jax.jit`: while it is traced, tagged arrays are constrained to the mesh."""

    @functools.wraps(function)
    def traced(*args: P.args, **kwargs: P.kwargs) -> T:
        if mesh.size == 1:
            return function(*args, **kwargs)
        with placing(functools.partial(place_activation, mesh), functools.partial(spread_over, mesh)):
            return function(*args, **kwargs)

    return traced
