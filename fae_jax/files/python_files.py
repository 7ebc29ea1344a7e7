"""Configurations and sweeps are Python files: finding one by path or name, and taking from it what it declares."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import re
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

Read = TypeVar("Read")
# What a ConfigDict says of a field that it has not: all that it has, and then perhaps the nearest
_DUMP = re.compile(r" and cannot be added since the config is locked\. Other fields present: .*?(?=Did you mean|$)")


def find_file(path: str, shipped: Path, what: str) -> Path:
    """The Python file at `path`; a bare name, or folder/name, means the file of that name in the folder `shipped`.

    Raises:
      FileNotFoundError: there is none; those that ship are named.
    """
    is_name = all(part.isidentifier() for part in path.split("/"))
    file = shipped / f"{path}.py" if is_name else Path(path).expanduser()
    if file.suffix != ".py" or not file.is_file():
        known = [p.relative_to(shipped) for pattern in ("*.py", "paper/*.py") for p in sorted(shipped.glob(pattern))]
        names = ", ".join(str(p.with_suffix("")) for p in known if p.stem != "__init__")
        raise FileNotFoundError(f"no {what} at {path!r}; give a Python file, or one of: {names}")
    return file


class _Loader(importlib.machinery.SourceFileLoader):
    """Neither reads bytecode beside a user's file nor writes it."""

    def path_stats(self, path: str) -> Any:
        raise OSError


def run_file(file: Path, what: str, read: Callable[[Any], Read]) -> Read:
    """What `read` takes from the module that a Python file is.

    Raises:
      ValueError: the file cannot be run, or does not hold what is read, in one line.
    """
    name = f"fae_jax_{what}_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file, loader=_Loader(name, str(file)))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        return read(module)
    except (Exception, SystemExit) as error:
        words = error if isinstance(error, OSError) or not error.args else error.args[0]
        reason = _DUMP.sub("; ", " ".join(str(words).split()))
        own, frames = str(file.absolute()), reversed(traceback.extract_tb(error.__traceback__))
        line = getattr(error, "lineno", None) or next((f.lineno for f in frames if f.filename == own), None)
        if line is None and isinstance(error, ValueError):
            raise  # said by `read`
        where = f"{file}, line {line}," if line else str(file)
        raise ValueError(f"{what} {where} is not valid: {type(error).__name__}: {_shorten(reason)}") from error


def _shorten(text: str, limit: int = 300) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
