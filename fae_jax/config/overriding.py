"""Configurations from Python files, and fields set on the command line and by sweeps."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from fae_jax.config.comparing import flatten, tuples
from fae_jax.config.composing import describe, root, thaw, unknown
from fae_jax.files.python_files import find_file, run_file


def load_config(path: str) -> ConfigDict:
    """Runs `get_config()` of a Python file; a bare name means the file of that name in `configs/`.

    Raises:
      FileNotFoundError: there is no such file; those that ship are named.
      ValueError: the file does not define a valid configuration.
    """

    def read(module: Any) -> ConfigDict:
        config = module.get_config()
        flatten(config)
        return config

    file = find_file(path, shipped_configs(), "configuration")
    config = run_file(file, "configuration", read)
    try:
        for name in flatten(config):
            describe(name)
    except ValueError as error:
        raise ValueError(f"configuration {file}: {error}") from error
    return config


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
    known = flatten(config)
    values = {}
    for name, text in overrides:
        if name not in known:
            raise ValueError(unknown(name))
        values[name] = parse_value(name, text, known[name])
    return _changed(config, values)


def with_values(config: Any, values: Mapping[str, Any]) -> ConfigDict:
    """A copy of `config` with {dotted name: value} applied; values are of the fields' own types.

    Whole numbers stand for floats, lists for tuples, and NumPy's numbers for Python's.

    Raises:
      ValueError: as in `override`.
    """
    known = flatten(config)
    converted = {}
    for name, given in values.items():
        if name not in known:
            raise ValueError(unknown(name))
        value, kind = tuples(given.item() if hasattr(given, "item") else given), type(known[name])
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            raise ValueError(f"field {name} is of type {kind.__name__} (now {known[name]!r}), got {given!r}")
        converted[name] = value
    return _changed(config, converted)


def _changed(config: Any, values: Mapping[str, Any]) -> ConfigDict:
    frozen = dataclasses.is_dataclass(config)
    result = thaw(config) if frozen else ConfigDict(config).copy_and_resolve_references()
    with result.unlocked():
        result.update_from_flattened_dict(values)
    for name in values:
        _check_chosen(result, name)
    return result


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
    kind = type(current)
    problem = ValueError(f"field {name} is of type {kind.__name__} (now {current!r}), got {text!r}")
    if kind is str:
        return text
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise problem
        return text.lower() == "true"
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError):
        raise problem from None
    if kind is float and type(value) is int:
        value = float(value)
    if kind is tuple and isinstance(value, list | int | float):
        value = tuple(value) if isinstance(value, list) else (value,)
    if type(value) is not kind:
        raise problem
    return tuples(value)
