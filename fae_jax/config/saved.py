"""`config.json`: the fields in force, and the version that wrote them."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from ml_collections import ConfigDict

from fae_jax import __version__
from fae_jax.config.composing import default_config, flatten, freeze
from fae_jax.config.overriding import with_values
from fae_jax.section import is_chosen

SCHEMA = 2  # goes up when fields are renamed or change their meaning


def to_json(config: Any, *, every: bool = False) -> str:
    """The configuration as indented JSON, keys in their order, led by the version.

    Args:
      every: also the fields of kinds that are not chosen.
    """
    content = {"version": {"fae_jax": __version__, "schema": SCHEMA}, **_written(freeze(config), every)}
    return json.dumps(content, indent=2) + "\n"


def _written(section: Any, every: bool) -> dict[str, Any]:
    """Without kinds that are not chosen, and without what other packages bring where it is left as it was."""
    content: dict[str, Any] = {}
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if not dataclasses.is_dataclass(value):
            content[field.name] = value
        elif every or is_chosen(section, field):
            untouched = field.metadata.get("from elsewhere") and "chosen by" not in field.metadata
            if not (untouched and value == type(value)()):
                content[field.name] = _written(value, every)
    return content


def from_json(text: str) -> ConfigDict:
    """Inverse of `to_json`.

    Raises:
      ValueError: not JSON, written by a version whose fields are others, or a field is unknown or of another type.
    """
    content = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError(f"it holds a {type(content).__name__}, not fields")
    version = content.pop("version", None)
    version = version if isinstance(version, dict) else {}
    if version.get("schema") != SCHEMA:
        raise ValueError(
            f"fae_jax {version.get('fae_jax', 'of an earlier day')} wrote it with fields of schema "
            f"{version.get('schema', 1)}, and this is {__version__} with schema {SCHEMA}: use that version, or begin "
            "anew in another directory"
        )
    return with_values(default_config(), flatten(content), every=True)
