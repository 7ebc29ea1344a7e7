"""What a launcher is given: tasks in phases, and its own settings; and how it runs programs."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from fae_jax.config.overriding import parse_value
from fae_jax.errors import RunFailed
from fae_jax.files.names import nearest
from fae_jax.section import validate

Settings = TypeVar("Settings")
REQUIRED = dataclasses.MISSING  # the default of a setting that has none
PYTHON = (sys.executable, "-P", "-m", "fae_jax")  # -P: a module in the current folder is not taken for a library


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """One command.

    Attributes:
      name: short, for logs and job names.
      words: after `fae`.
    """

    name: str
    words: tuple[str, ...]

    def command(self, program: str = "") -> str:
        """As one shell line; `program` stands for `fae`, by default this very Python with this package."""
        return f"{program or shlex.join(PYTHON)} {shlex.join(self.words)}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Phase:
    """Tasks that may run side by side.

    Attributes:
      name: short, for logs and job names.
      alone: a task is one process without accelerators, whatever the settings say of points.
    """

    name: str
    tasks: tuple[Task, ...]
    alone: bool = False


def parse_settings(kind: type[Settings], launcher: str, given: Iterable[str]) -> Settings:
    """Settings of a launcher from words NAME=VALUE.

    Raises:
      ValueError: a name is unknown (the nearest is given), a value wrong, or a required one is missing.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for word in given:
        name, equals, text = word.partition("=")
        if name not in fields:
            raise ValueError(f"launcher {launcher} has no setting {name!r}; {nearest(name, fields)}")
        if not equals:
            raise ValueError(f"--launch {word} needs a value: {word}=VALUE")
        default = fields[name].default
        values[name] = parse_value(f"{launcher}.{name}", text, "" if default is REQUIRED else default)
    missing = [name for name, field in fields.items() if field.default is REQUIRED and name not in values]
    if missing:
        raise ValueError(f"launcher {launcher} needs {' and '.join(f'--launch {name}=…' for name in missing)}")
    settings = kind(**values)
    validate(settings, launcher)
    return settings


def run_quietly(words: list[str], what: str) -> str:
    """Runs a program and returns its standard output.

    Raises:
      RunFailed: it ended with another code than 0; its last line of standard error is given.
    """
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip() or done.stdout.strip() or f"code {done.returncode}").splitlines()[-1]
        raise RunFailed(f"{what}: {reason}")
    return done.stdout.strip()


def run_phases(phases: list[Phase], run: Callable[[Phase], list[str]], remedy: str) -> None:
    """Runs the phases in order by `run`, which returns a line per failed task; nothing follows one that failed whole.

    Raises:
      RunFailed: tasks failed; the first three are named, and `remedy`.
    """
    failures: list[str] = []
    for phase in phases:
        failed = run(phase)
        failures += failed
        if failed and len(failed) == len(phase.tasks):
            break
    if failures:
        more = f"; and {len(failures) - 3} more" if len(failures) > 3 else ""
        raise RunFailed(f"{'; '.join(failures[:3])}{more}; {remedy}")


def cloud_name(*words: str, limit: int = 40) -> str:
    """A name that clouds accept: small letters, digits and dashes, a letter first; shortened ones end in a hash."""
    text = re.sub(r"[^a-z0-9]+", "-", "-".join(words).lower()).strip("-")
    text = text if text[:1].isalpha() else f"fae-{text}"
    if len(text) <= limit:
        return text
    return f"{text[: limit - 7].rstrip('-')}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"
