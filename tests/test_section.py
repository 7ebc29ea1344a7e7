"""Every check says what is wrong with a value, names its dotted field, and lets right values through."""

import dataclasses
from typing import Any

import pytest

from fae_jax.section import (
    above,
    as_dict,
    at_least,
    decays,
    like,
    numbers,
    one_of,
    option,
    share,
    subsection,
    validate,
    whole_numbers,
)


@pytest.mark.parametrize(
    ("check", "right", "wrong", "problem"),
    [
        (at_least(1), (1, 7), (0, -3), "must be at least 1"),
        (at_least(0.5), (0.5,), (0.4,), "must be at least 0.5"),
        (above(0), (0.1,), (0, 0.0, -1), "must be above 0"),
        (share, (0, 0.0, 0.99), (1, 1.0, -0.1), r"is a share and must be in \[0, 1\)"),
        (one_of("a", "b"), ("a", "b"), ("c", ""), "must be one of a, b"),
        (decays, ((), (0.9, 0.99)), ((1.0,), (0.0,), (1,), ("a",)), "holds decays between 0 and 1"),
        (whole_numbers(), ((), (-1, 2)), ((1.0,), (True,), ("a",)), "holds whole numbers"),
        (whole_numbers(1), ((), (1, 2)), ((0,), (2, -1)), "holds whole numbers of at least 1"),
        (whole_numbers(1, some=True), ((1,),), ((), (0,)), "holds one or more whole numbers of at least 1"),
        (numbers(2, "two bounds"), ((1, 2.5),), ((1,), (1, 2, 3), 1, (1, True), ("a", 1)), "holds two bounds"),
        (numbers(2, "low and high", lambda a, b: a < b), ((1, 2),), ((2, 1), (1, 1)), "holds low and high"),
    ],
)
def test_checks(check: Any, right: tuple, wrong: tuple, problem: str):
    section = dataclasses.make_dataclass("Section", [("field", Any, option(None, "a field", check))], frozen=True)
    for value in right:
        validate(section(value), "room")
    for value in wrong:
        with pytest.raises(ValueError, match=rf"^field room\.field {problem}, got ") as caught:
            validate(section(value), "room")
        assert str(caught.value).endswith(repr(value)) and "\n" not in str(caught.value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    depth: int = option(2, "blocks", at_least(1))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outer:
    batch: int = option(8, "examples", at_least(1))
    parts: int = option(1, "parts of it", at_least(1), operational=True)
    inner: Inner = subsection(Inner)

    def check(self) -> None:
        if self.batch % self.parts:
            raise ValueError(f"parts={self.parts} must divide batch={self.batch}")


def test_sections_inside_sections_and_fields_that_go_together():
    validate(Outer())
    with pytest.raises(ValueError, match=r"^field parts=3 must divide batch=8$"):
        validate(Outer(parts=3))
    with pytest.raises(ValueError, match=r"^field room\.parts=3 must divide batch=8$"):
        validate(Outer(parts=3), "room")
    with pytest.raises(ValueError, match=r"^field room\.inner\.depth must be at least 1, got 0$"):
        validate(Outer(inner=Inner(depth=0)), "room")
    with pytest.raises(ValueError, match=r"^field parts must be at least 1, got 0$"):
        validate(Outer(parts=0))  # before the division by it
    assert as_dict(Outer()) == {"batch": 8, "parts": 1, "inner": {"depth": 2}}


def test_another_default_keeps_comment_checks_and_whether_it_is_operational():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Narrow(Outer):
        parts: int = like(Outer, "parts", 2)

    ours, theirs = ({field.name: field for field in dataclasses.fields(kind)} for kind in (Narrow, Outer))
    assert Narrow().parts == 2 and list(ours) == list(theirs)
    assert ours["parts"].metadata == theirs["parts"].metadata
    with pytest.raises(ValueError, match="field parts must be at least 1"):
        validate(Narrow(parts=0))
