"""Where a result comes from: all that decides its numbers, so that two that differ in it never bear one name.

A result holds `origin`, and in it `digest`, eight letters of a hash of everything of the origin that is not time.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from typing import Any

import jax

from fae_jax import __version__
from fae_jax.files.paths import Path
from fae_jax.files.progress import say
from fae_jax.files.writing import json_hash, plain, read_json, write_atomically
from fae_jax.section import as_dict


def origin_of(facts: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """The `origin` of a result: `facts`, versions, devices, the seconds it took, and the digest."""
    made = {
        **plain(facts),
        "fae_jax": __version__,
        "jax": jax.__version__,
        "python": platform.python_version(),
        "device": jax.local_devices()[0].device_kind,
        "devices": jax.device_count(),
        "hosts": jax.process_count(),
    }
    return {**made, "digest": json_hash(made)[:8], "seconds": round(seconds, 1)}


def metric_settings(chosen: Iterable[str], section: Any) -> dict[str, Any]:
    """The fields of the metrics called `chosen`; `section` is the configuration's `evaluation.metrics`."""
    fields = {name: getattr(section, name, None) for name in chosen}
    return {name: as_dict(each) if each is not None else {} for name, each in fields.items()}


def keep_other(file: Path, origin: Mapping[str, Any]) -> None:
    """Renames the result at `file` to NAME-DIGEST.json where its origin is another than `origin`."""
    if not file.is_file():
        return
    try:
        there = read_json(file, "")["origin"]["digest"]
    except (ValueError, KeyError, TypeError):
        there = "earlier"  # by a version that wrote none, or damaged
    if there != origin["digest"]:
        kept = file.with_name(f"{file.stem}-{there}.json")
        write_atomically(kept, file.read_bytes())
        say(f"the result of another origin is kept as {kept.name}")
