"""Lists the fields of the configuration: name, default, what it is. A section, or one field, may be named.

fae config                     all of them
fae config generator           those of a section
fae config generator.steps     one
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

from fae_jax.config.composing import SECTIONS, Field, describe, describe_all
from fae_jax.files.names import nearest
from fae_jax.files.progress import tell


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("field", nargs="?", default="", metavar="FIELD", help="a field or section; default: all")
    parser.add_argument("--markdown", action="store_true", help="as docs/configuration.md has them")


def as_markdown(fields: Iterable[Field]) -> str:
    """A table for each section; in front of a field that may differ at a restart stands a "·"."""
    lines, before = [], None
    for field in fields:
        section = field.name.partition(".")[0] if "." in field.name else ""
        if section != before:
            lines += ["", f"## {section or 'In no section'}", "", "| field | default | is |", "|---|---|---|"]
        free = "· " if field.operational else ""
        lines.append(f"| {free}`{field.name}` | `{field.default!r}` | {field.comment} |")
        before = section
    return "\n".join(lines) + "\n"


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    name = arguments.field.strip(".")
    fields = [field for field in describe_all().values() if not name or field.name.startswith(f"{name}.")]
    if not fields and name not in describe_all():
        raise ValueError(f"there is no field or section {name!r}; {nearest(name, [*SECTIONS, *describe_all()])}")
    fields = fields or [describe(name)]
    if arguments.markdown:
        tell(as_markdown(fields), end="")
    else:
        for field in fields:
            note = " (may differ at a restart)" if field.operational else ""
            tell(f"{field.name}={field.default!r}  # {field.comment}{note}")
    return {field.name: {"default": field.default, "is": field.comment} for field in fields}
