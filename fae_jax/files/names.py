"""Hints for misspelt names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(
    name: str, known: Iterable[str], *, otherwise: str | None = None, cutoff: float = 0.6, limit: int = 12
) -> str:
    """`did you mean 'x'?` with the known name that is most alike; else `otherwise`, or the first `limit` names."""
    known = [str(each) for each in known]
    near = difflib.get_close_matches(name, known, n=1, cutoff=cutoff)
    if near:
        return f"did you mean {near[0]!r}?"
    if otherwise is not None:
        return otherwise
    return (
        f"choose one of {', '.join(known[:limit])}{', …' if len(known) > limit else ''}" if known else "there is none"
    )
