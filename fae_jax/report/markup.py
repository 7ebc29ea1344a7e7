"""HTML built from Python values, safe by construction: text is escaped unless a function here made it.

tag("p", "a < b", tag("b", "c"), class_="note")   →   <p class="note">a &lt; b<b>c</b></p>
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Any

VOID = {"br", "hr", "img", "input", "line", "link", "meta", "path"}


class Markup(str):
    """A string that is HTML already."""

    __slots__ = ()


def render(child: Any) -> str:
    """`child` as HTML: None is nothing, `Markup` stands as it is, an iterable is its parts, anything else is text."""
    if child is None:
        return ""
    if isinstance(child, Markup):
        return str(child)
    if isinstance(child, str):
        return html.escape(child, quote=True)
    if isinstance(child, Iterable):
        return "".join(render(part) for part in child)
    return html.escape(str(child), quote=True)


def join(*children: Any) -> Markup:
    """The children one after the other."""
    return Markup(render(children))


def tag(name: str, /, *children: Any, **attributes: Any) -> Markup:
    """An element. Attributes that are None or False are left out; in names `_` becomes `-`, at the end nothing."""
    words = [name]
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if value is True:
            words.append(key)
        elif value is not None and value is not False:
            words.append(f'{key}="{html.escape(str(value), quote=True)}"')
    opening = " ".join(words)
    return Markup(f"<{opening}/>" if name in VOID else f"<{opening}>{render(children)}</{name}>")
