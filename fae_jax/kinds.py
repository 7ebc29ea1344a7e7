"""Kinds of anything: a table of names in the folder they live in, and those that other packages bring.

    COMPRESSORS = {"attention": "fae_jax.autoencoder.compressors:Compressor", …}      a name and where the kind is

Another package brings one by an entry point, without touching this repository:

    [project.entry-points."fae_jax.compressors"]
    convolutional = "their_package.compressors:Convolutional"

Nothing is imported before it is asked for. A kind that has fields of its own in the configuration carries them as
`Section`, a frozen dataclass of options (`fae_jax.section`), or is one.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from fae_jax.files.names import nearest


@functools.cache
def entry_points(group: str) -> tuple[metadata.EntryPoint, ...]:
    """What installed packages bring to a group, by name."""
    return tuple(
        sorted(metadata.entry_points(group=f"fae_jax.{group}"), key=lambda point: (point.name, _package(point)))
    )


def names(group: str, table: Mapping[str, str]) -> list[str]:
    """Every kind that can be asked for: the table's in their order, then those of other packages."""
    return list(dict.fromkeys((*table, *(point.name for point in entry_points(group)))))


def own(table: Mapping[str, str], name: str) -> Any:
    """The table's kind called `name`."""
    module, _, attribute = table[name].partition(":")
    loaded = importlib.import_module(module)
    return getattr(loaded, attribute) if attribute else loaded


def find(group: str, table: Mapping[str, str], name: str) -> Any:
    """The kind called `name`.

    Args:
      group: such as "compressors"; the entry points' group is "fae_jax.compressors".
      table: name → "module:attribute", or "module".

    Raises:
      ValueError: there is none of that name (the nearest is named), two packages bring one, or it cannot be loaded.
    """
    points = [point for point in entry_points(group) if point.name == name]
    owners = [*(["fae_jax"] if name in table else []), *(_package(point) for point in points)]
    if not owners:
        raise ValueError(f"{name!r} is none of the {_words(group)}; {nearest(name, names(group, table))}")
    if len(owners) > 1:
        raise ValueError(f"{name!r} of the {_words(group)} comes from {' and '.join(owners)}; uninstall one of them")
    if not points:
        return own(table, name)
    try:
        return points[0].load()
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(
            f"{name!r} of the {_words(group)} cannot be loaded from the package {owners[0]} ({reason}); repair or "
            "uninstall it"
        ) from error


def section_of(kind: Any) -> type | None:
    """The section that a kind brings to the configuration, or None."""
    section = getattr(kind, "Section", kind)
    options = dataclasses.is_dataclass(section) and isinstance(section, type)
    if options and all("operational" in field.metadata for field in dataclasses.fields(section)):
        return section
    return None


def _package(point: metadata.EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value.split(".")[0].split(":")[0]


def _words(group: str) -> str:
    return group.replace("_", " ")
