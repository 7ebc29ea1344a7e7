"""Tables of kinds: a name becomes what it stands for, here or in anybody's package."""

from __future__ import annotations

import difflib
import importlib
from importlib.metadata import entry_points
from typing import Any


def names(group: str, table: dict[str, str]) -> list[str]:
    return [*table, *(point.name for point in entry_points(group=f"fae_jax.{group}"))]


def find(group: str, table: dict[str, str], name: str) -> Any:
    if name in table:
        module, _, attribute = table[name].partition(":")
        return getattr(importlib.import_module(module), attribute)
    for point in entry_points(group=f"fae_jax.{group}", name=name):
        return point.load()
    near = difflib.get_close_matches(name, names(group, table), n=1)
    raise ValueError(f"{group} {name!r} is unknown; did you mean {near[0]!r}?" if near else f"{group} {name!r} is unknown")
