"""Which array lies where: (regex on its path → tactic), the first that matches.

Tactics: `replicate`, or `fsdp`: split the longest axis that the fsdp axis divides; arrays below `MINIMUM` values
stay whole, since gathering them costs more than they take.
"""

from __future__ import annotations

import re
from typing import Any

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

RULES: tuple[tuple[str, str], ...] = ((r".*", "fsdp"),)
MINIMUM = 2**14


def path_name(path: tuple[Any, ...]) -> str:
    """A key path of jax.tree_util as a/b/c."""
    return "/".join(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path)


def _specification(
    name: str, shape: tuple[int, ...], mesh: Mesh | AbstractMesh, rules: tuple[tuple[str, str], ...]
) -> PartitionSpec:
    tactic = next(tactic for pattern, tactic in rules if re.search(pattern, name))
    size = mesh.shape["fsdp"]
    elements = 1
    for extent in shape:
        elements *= extent
    if tactic == "replicate" or elements < MINIMUM or size == 1:
        return PartitionSpec()
    candidates = [axis for axis, extent in enumerate(shape) if extent % size == 0]
    if not candidates:
        return PartitionSpec()
    longest = max(candidates, key=lambda axis: shape[axis])
    return PartitionSpec(*("fsdp" if axis == longest else None for axis in range(len(shape))))


def shardings(shapes: Any, mesh: Mesh | AbstractMesh, rules: tuple[tuple[str, str], ...] = RULES) -> Any:
    """A sharding for each leaf of a tree of arrays or shapes, optimizer states and averages included."""

    def choose(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        return NamedSharding(mesh, _specification(path_name(path), leaf.shape, mesh, rules))

    return jax.tree_util.tree_map_with_path(choose, shapes)
