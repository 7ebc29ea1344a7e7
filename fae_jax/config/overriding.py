"""Configurations from Python files, and fields set on the command line and by sweeps."""

from __future__ import annotations

import ast
import dataclasses
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ml_collections import ConfigDict

from fae_jax.config.checking import check
from fae_jax.config.composing import describe, flatten, root, thaw, tuples, unknown
from fae_jax.files.paths import is_remote
from fae_jax.files.python_files import find_file, run_file

Read = TypeVar("Read")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")  # kept where no such file is here


def load_config(path: str) -> ConfigDict:
    """Runs `get_config()` of a Python file; a bare name means the file of that name in `configs/`.

    Raises:
      FileNotFoundError: there is no such file; those that ship are named.
      ValueError: the file does not define a valid configuration.
    """

    def read(module: Any) -> ConfigDict:
        config = module.get_config()
        if not isinstance(config, ConfigDict):
            raise TypeError(f"get_config() must return a ConfigDict, got {type(config).__name__}")
        for name, value in flatten(config).items():  # the library lets None stand for everything
            _converted(name, value, describe(name).default)
        return config

    return read_declared(path, shipped_configs(), "configuration", read)


def load_protocol(path: str) -> list[tuple[str, str]]:
    """The fields that a protocol fixes, as `override` takes them: `get_protocol()` of a Python file; a bare name
    means the file of that name in `configs/protocols`.

    Raises:
      FileNotFoundError, ValueError: see `load_config`.
    """

    def read(module: Any) -> list[tuple[str, str]]:
        fields = module.get_protocol()
        for name, value in fields.items():
            _converted(name, value, describe(name).default)
        return [(name, value if isinstance(value, str) else repr(value)) for name, value in fields.items()]

    return read_declared(path, shipped_configs() / "protocols", "protocol", read)


def read_declared(path: str, folder: Path, what: str, read: Callable[[Any], Read]) -> Read:
    """What `read` takes from a Python file; a bare name means the file of that name in `folder`.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it cannot be run or read; begins with `what` it is and the file.
    """
    file = find_file(path, folder, what)
    try:
        return run_file(file, what, read)
    except ValueError as error:
        text = str(error)
        raise ValueError(text if text.startswith(f"{what} ") else f"{what} {file}: {text}") from error


def shipped_configs() -> Path:
    """The folder of configurations: beside the package in a checkout, inside it when installed."""
    beside = Path(__file__).parents[2] / "configs"
    return beside if beside.is_dir() else Path(__file__).parents[1] / "configs"


def override(config: Any, overrides: Iterable[tuple[str, str]]) -> ConfigDict:
    """A copy of `config` with (dotted name, text) pairs applied.

    Raises:
      ValueError: a field is unknown (the nearest is named) or belongs to a kind that is not chosen, or the text is
        not of its type.
    """
    fields = flatten(config)
    return with_values(
        config, {name: parse_value(name, text, fields[name]) if name in fields else text for name, text in overrides}
    )


def settle(config: Any, overrides: Iterable[tuple[str, str]]) -> Any:
    """What a command goes by: `override`, `from_root`, `check`.

    Raises:
      ValueError: see all three.
    """
    return check(from_root(override(config, overrides)))


def from_root(config: Any) -> ConfigDict:
    """The configuration with paths that mean the same wherever the next command is typed: from the root on."""
    paths = {name: value for name, value in flatten(config).items() if describe(name).path}
    return with_values(config, {name: _from_root(value) for name, value in paths.items()}, every=True)


def _from_root(value: Any) -> Any:
    if isinstance(value, tuple):  # a mixture: (source, path, weight)
        return tuple(
            (part[0], _from_root(part[1]), *part[2:]) if isinstance(part, tuple) and len(part) > 1 else part
            for part in value
        )
    if not isinstance(value, str) or not value or is_remote(value):
        return value
    here = os.path.expanduser(value)
    return value if _HUB_NAME.fullmatch(value) and not os.path.exists(here) else os.path.abspath(here)


def with_values(config: Any, values: Mapping[str, Any], *, every: bool = False) -> ConfigDict:
    """A copy of `config` with {dotted name: value} applied.

    Whole numbers stand for floats, lists for tuples, and NumPy's numbers for Python's.

    Args:
      every: values of kinds that are not chosen are taken too.

    Raises:
      ValueError: a field is unknown (the nearest is named) or belongs to a kind that is not chosen, or the value is
        not of its type.
    """
    fields = flatten(config)
    for name in values:
        if name not in fields:
            raise ValueError(unknown(name))
    converted = {name: _converted(name, value, fields[name]) for name, value in values.items()}
    result = thaw(config) if dataclasses.is_dataclass(config) else ConfigDict(config).copy_and_resolve_references()
    with result.unlocked():
        result.update_from_flattened_dict(converted)
    for name in () if every else converted:
        _check_chosen(result, name)
    return result


def _converted(name: str, given: Any, current: Any, text: str | None = None) -> Any:
    value = tuples(given.item() if hasattr(given, "item") else given)
    if value is None and current is None:
        return None
    kind = bool if current is None else type(current)
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise ValueError(
            f"field {name} is of type {kind.__name__} (now {current!r}), got {given if text is None else text!r}"
        )
    if any(isinstance(leaf, float) and not math.isfinite(leaf) for leaf in _leaves(value)):
        raise ValueError(f"field {name} must be finite, got {given if text is None else text!r}")
    return value


def _leaves(value: Any) -> list[Any]:
    return [leaf for item in value for leaf in _leaves(item)] if isinstance(value, tuple) else [value]


def _check_chosen(config: ConfigDict, name: str) -> None:
    """Refuses a field of a kind that is not the one chosen."""
    section, values, prefix = root(), config, ""
    for word in name.split(".")[:-1]:
        (field,) = (field for field in dataclasses.fields(section) if field.name == word)
        chooser = field.metadata.get("chosen by")
        if chooser and values[chooser] != word:
            raise ValueError(
                f"field {name} belongs to {chooser} {word!r}, but {prefix}{chooser} is {values[chooser]!r}"
            )
        assert isinstance(field.default_factory, type)
        section, values, prefix = field.default_factory, values[word], f"{prefix}{word}."


def parse_value(name: str, text: str, current: Any) -> Any:
    """Reads `text` as a value of the type of `current`.

    Raises:
      ValueError: it is not one.
    """
    if isinstance(current, str):
        return text
    try:
        value = ast.literal_eval({"true": "True", "false": "False"}.get(text.lower(), text))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        value = None
    alone = isinstance(current, tuple) and isinstance(value, int | float)
    return _converted(name, (value,) if alone else value, current, text)
