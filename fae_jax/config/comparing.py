"""Configurations side by side, by dotted names."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from fae_jax.config.composing import freeze, is_operational
from fae_jax.section import as_dict


def flatten(config: Any, *, every: bool = True) -> dict[str, Any]:
    """{"section.field": value}, sequences as tuples.

    Args:
      config: a `ConfigDict`, a frozen configuration or a nested mapping.
      every: also the fields of kinds that are not chosen.
    """
    if dataclasses.is_dataclass(config) or not every:
        config = as_dict(freeze(config), every=every)
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, ConfigDict | Mapping):
            flat.update({f"{key}.{name}": inner for name, inner in flatten(value).items()})
        else:
            flat[key] = tuples(value)
    return flat


def tuples(value: Any) -> Any:
    """The value with tuples for lists, inside it too."""
    return tuple(tuples(item) for item in value) if isinstance(value, list | tuple) else value


def differences(ours: Any, theirs: Any) -> list[str]:
    """Fields that decide the result and differ, each as `name: theirs → ours`.

    Fields of kinds that are not chosen decide nothing; where kinds differ, the kind itself is named.
    """
    mine, other = flatten(ours, every=False), flatten(theirs, every=False)
    return [
        f"{name}: {other[name]!r} → {value!r}"
        for name, value in mine.items()
        if name in other and value != other[name] and not is_operational(name)
    ]
