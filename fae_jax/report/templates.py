"""Pages from the templates of this folder: escaped, and with the stylesheet inside, so that each is a single file."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import jinja2

from fae_jax.report import words


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fae_jax.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(inspect.getmembers(words, inspect.isfunction))  # {{ value|percent }}
    return environment


def render(template: str, **values: Any) -> str:
    """A template with its values; text among them is escaped.

    Args:
      template: "report.html", "comparison.html", "sweep.html", "prepare.html" or "plot.svg".

    Raises:
      jinja2.UndefinedError: the template needs a value that is not given.
    """
    return _environment().get_template(template).render(values)
