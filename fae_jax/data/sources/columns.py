"""Which columns of a data set are read, where it has many: its image, and its class or its captions.

A nested column goes by the names that lead to it: `captions/text`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from fae_jax.section import option

USUAL = {"image": ("image",), "label": ("label",), "caption": ("caption", "captions", "text")}
_WORDS = {"image": "images", "label": "classes", "caption": "captions"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Columns:
    """The columns of a parquet file, or the features of a TFDS data set, that are meant; empty: the one that fits."""

    image: str = option("", "parquet, tfds: the column of images, where several fit; nested ones as photo/image")
    label: str = option("", "parquet, tfds: the column of classes, where several fit")
    caption: str = option(
        "", "parquet, tfds: the column of captions, as captions/text; it is read in place of classes"
    )

    def check(self) -> None:
        if self.label and self.caption:
            raise ValueError(f"label={self.label!r} goes with no caption, got {self.caption!r}: clear one of them")


UNNAMED = Columns()


class Chosen(NamedTuple):
    """The columns that are read.

    Attributes:
      image, label, caption: their names; label or caption is empty.
      marks: those that nobody would read without being told, as "role=name".
    """

    image: str
    label: str
    caption: str
    marks: list[str]


def choose(
    named: Columns, possible: dict[str, list[str]], likely: dict[str, list[str]], where: str, every: Sequence[str]
) -> Chosen:
    """Columns by what the configuration names, then by `USUAL` names; classes before captions.

    Args:
      named: what the configuration says.
      possible: per field of `Columns`, every column of that type.
      likely: those among them that may be read without being named.
      where: what to call the data set in errors.
      every: all its columns.

    Raises:
      ValueError: a named column is not there or of another type, several fit, or none; says which, and the field.
    """
    usual = {role: [name for name in likely[role] if _is_usual(name, role)] or likely[role] for role in USUAL}
    names = dict.fromkeys(USUAL, "")
    for role in USUAL:
        field, words = f"--config.data.columns.{role}", _WORDS[role]
        if name := getattr(named, role):
            if name not in possible[role]:
                fitting = ", ".join(possible[role]) or f"none, and it has {', '.join(every)}"
                raise ValueError(f"{where} has no column of {words} called {name!r} ({field}); there is {fitting}")
            names[role] = name
        elif (role == "label" and named.caption) or (role == "caption" and names["label"]):
            continue
        elif len(usual[role]) > 1:
            raise ValueError(
                f"{where} has several columns of {words}: {', '.join(usual[role])}; choose one, as in "
                f"{field}={usual[role][0]}"
            )
        else:
            names[role] = next(iter(usual[role]), "")
    for roles in (("image",), ("label", "caption")):
        if not any(names[role] for role in roles):
            words = " or ".join(_WORDS[role] for role in roles)
            fields = " or ".join(f"--config.data.columns.{role}=NAME" for role in roles if possible[role])
            remedy = f"; if one is, say {fields}" if fields else ""
            raise ValueError(f"{where} has no column that is known to hold {words}: {', '.join(every)}{remedy}")
    read = {role: name for role, name in names.items() if name}
    marks = [
        f"{role}={name}"
        for role, name in read.items()
        if usual[role] != [name] or (role == "caption" and usual["label"])
    ]
    return Chosen(**names, marks=marks)


def _is_usual(name: str, role: str) -> bool:
    return not set(USUAL[role]).isdisjoint(name.split("/"))
