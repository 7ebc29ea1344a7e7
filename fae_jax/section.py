"""A section of the configuration: a frozen dataclass beside what it configures.

Each field is an `option`: default, one-line comment and range checks in one place. A check takes the value and says
what is wrong with it ("must be at least 1"), or None. A section may have a method `check(self)` for fields that go
together, which raises a ValueError whose text begins with the name of a field: "microbatches=3 must divide batch=8".

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class DecoderSection:
        depth: int = option(6, "blocks", at_least(1))

`fae_jax.config` composes sections into the configuration; whoever reads one reads plain attributes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Check = Callable[[Any], str | None]


class Plugs(NamedTuple):
    """Kinds that may bring a subsection each: see `fae_jax.kinds`. A section with the class attribute
    `subsections = Plugs(…)` has those of all kinds."""

    group: str
    table: Mapping[str, str]


def option(default: Any, comment: str, *checks: Check, operational: bool = False, path: bool = False) -> Any:
    """A field.

    Args:
      default: its value where nobody says otherwise; its type is the field's.
      comment: what it is, in one line.
      operational: it changes how a run is carried out, watched or used, never what is trained: it may differ at a
        restart. A section with the class attribute `operational = True` has only such fields.
      path: it names a file or folder, which is kept from the root of its file system on.
    """
    metadata = {"comment": comment, "checks": checks, "operational": operational, "path": path}
    return dataclasses.field(default=default, metadata=metadata)


def plug(default: str, comment: str, group: str, table: Mapping[str, str], *checks: Check) -> Any:
    """A field that chooses a kind; the kinds' subsections stand beside it, each under the name of its kind."""
    metadata = {"comment": comment, "checks": checks, "operational": False, "plugs": Plugs(group, table)}
    return dataclasses.field(default=default, metadata=metadata)


def subsection(section: type) -> Any:
    """A section inside a section."""
    return dataclasses.field(default_factory=section, metadata={"operational": False})


def like(section: type, name: str, default: Any) -> Any:
    """The option of another section, with another default."""
    (field,) = (field for field in dataclasses.fields(section) if field.name == name)
    return dataclasses.field(default=default, metadata=field.metadata)


# Checks


def at_least(bound: float | int) -> Check:
    return lambda value: None if value >= bound else f"must be at least {bound}"


def at_most(bound: float | int) -> Check:
    return lambda value: None if value <= bound else f"must be at most {bound}"


def above(bound: float | int) -> Check:
    return lambda value: None if value > bound else f"must be above {bound}"


def seed_range(value: Any) -> str | None:
    """A seed. JAX's keys hold 32 bits of it, so that a larger one would be another's twin."""
    return None if type(value) is int and 0 <= value < 2**32 else "must be a whole number from 0 to 4294967295"


def share(value: Any) -> str | None:
    """A share of something, never all of it."""
    return None if 0 <= value < 1 else "is a share and must be in [0, 1)"


def one_of(*names: str) -> Check:
    return lambda value: None if value in names else f"must be one of {', '.join(names)}"


def decays(value: Any) -> str | None:
    """Decays of moving averages."""
    return None if all(isinstance(d, float) and 0 < d < 1 for d in value) else "holds decays between 0 and 1"


def whole_numbers(least: int | None = None, *, some: bool = False) -> Check:
    """Any number of whole numbers of at least `least`; at least one of them if `some`."""

    def check(value: Any) -> str | None:
        fits = all(type(number) is int and (least is None or number >= least) for number in value)
        bound = "" if least is None else f" of at least {least}"
        return None if fits and (value or not some) else f"holds {'one or more ' if some else ''}whole numbers{bound}"

    return check


def are_numbers(value: Any, count: int) -> bool:
    """Whether `value` is a sequence of that many numbers."""
    numbers = isinstance(value, list | tuple) and len(value) == count
    return numbers and all(isinstance(item, int | float) and not isinstance(item, bool) for item in value)


def numbers(count: int, what: str, fits: Callable[..., bool] = lambda *values: True) -> Check:
    """That many numbers, for which `fits(*numbers)`; `what` says both: "a low and a high bound"."""
    return lambda value: None if are_numbers(value, count) and fits(*value) else f"holds {what}"


# Reading a section


def is_chosen(section: Any, field: dataclasses.Field[Any]) -> bool:
    """Whether a field is in force: a kind's subsection is where that kind is chosen, every other field always."""
    chooser = field.metadata.get("chosen by")
    return chooser is None or getattr(section, chooser) == field.name


def as_dict(section: Any, *, every: bool = False) -> dict[str, Any]:
    """A section as nested plain values; subsections of kinds that are not chosen only if `every`."""
    return {
        field.name: as_dict(value, every=every) if dataclasses.is_dataclass(value) else value
        for field in dataclasses.fields(section)
        if every or is_chosen(section, field)
        for value in [getattr(section, field.name)]
    }


def validate(section: Any, name: str = "") -> None:
    """Checks a section and all below it that are in force.

    Args:
      name: the section's own dotted name, for errors.

    Raises:
      ValueError: one line that names the field, the value and what it must be.
    """
    prefix = f"{name}." if name else ""
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            if is_chosen(section, field):
                validate(value, prefix + field.name)
            continue
        for check in field.metadata.get("checks", ()):
            problem = check(value)
            if problem:
                raise ValueError(f"field {prefix}{field.name} {problem}, got {value!r}")
    if hasattr(section, "check"):
        try:
            section.check()
        except ValueError as error:
            raise ValueError(f"field {prefix}{error}") from error
