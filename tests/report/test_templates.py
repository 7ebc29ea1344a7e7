"""What all pages share: the stylesheet, its contrast, boxes that the keyboard reaches, and that they are shipped."""

import ast
import re
from fnmatch import fnmatch
from importlib import resources
from pathlib import Path

import jinja2
import pytest

from fae_jax.report.templates import render

ROOM = resources.files("fae_jax.report")
STYLE = ROOM.joinpath("report.css").read_text()


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[start : start + 2], 16) / 255 for start in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_text_stands_out_in_the_light_and_in_the_dark():
    """WCAG 2.1, 1.4.3: at least 4.5 to 1."""
    light, dark = (dict(re.findall(r"--(\w+): (#\w+)", block)) for block in STYLE.split("@media")[:2])
    assert light.keys() == dark.keys() and luminance(light["page"]) > 0.8 > 0.1 > luminance(dark["page"])
    for scheme in (light, dark):
        for name in scheme.keys() - {"page", "card", "wash", "rule"}:
            grounds = ("page", "card", "wash") if name in ("ink", "soft", "faint") else ("page", "card")
            for ground in grounds:
                assert contrast(scheme[name], scheme[ground]) >= 4.5, (name, ground, scheme[name])


def test_boxes_that_may_scroll_can_be_reached_and_have_a_name(finished, draw):
    page = draw(finished)
    boxes = [box for box in page.all("div") if box.get("class") in ("frames", "table", "table times")]
    assert len(boxes) == 5 + 2 + 1 + 2 + 3 + 1  # previews, samples, novelty, understanding, times
    assert all(box["tabindex"] == "0" and box["role"] == "group" and box["aria-label"] for box in boxes)


def test_the_stylesheet_stands_in_every_page_as_it_is_in_its_file(finished, draw):
    draw(finished)
    assert STYLE.strip() in (finished / "report.html").read_text()
    assert STYLE.strip() in render("sweep.html", title="s", text="t", plots=[])


def test_text_is_escaped_and_a_missing_value_is_an_error():
    page = render("sweep.html", title="<b>", text="a < b & 'c'", plots=["<svg></svg>"])
    assert "<title>&lt;b&gt; · FAE</title>" in page and "a &lt; b &amp; &#39;c&#39;" in page and "<svg>" in page
    with pytest.raises(jinja2.UndefinedError, match="'text' is undefined"):
        render("sweep.html", title="t", plots=[])


def test_what_prepare_found_is_a_page(page_of):
    spread = {"min": 1.0, "5%": 2.0, "median": 3.5, "95%": 4.0, "max": 1234.0, "mean": 3.25}
    summary = {
        "found": 1310,
        "used": 1300,
        "skipped": 10,
        "bytes": 2_500_000_000,
        "reasons": {"it is <small>": {"count": 1010, "examples": ["a & b.jpg: 3×4"]}},
        "duplicates": {"groups": 1, "extra": 7},
        "shorter side": spread,
        "aspect": {},
        "fingerprint": "abc",
        "classes": {"<ant>": 1200, "bee": 100},
    }
    page = page_of(render("prepare.html", title="imagenet: /data", summary=summary))
    for words in (
        "images 1,310 used 1,300 left out 10 identical to another 7 gigabytes 2.500",
        "1,010: it is <small>",
    ):
        assert words in page.text, words
    assert "shorter side 1 2 3.5 4 1,234 3.25" in page.text and "a & b.jpg: 3×4" in page.of("reasons")
    assert "<ant> 1,200 bee 100" in page.of("classes")
    bare = {**summary, "reasons": {}}
    del bare["classes"]
    assert set(page_of(render("prepare.html", title="t", summary=bare)).ids()) == set()


def test_templates_and_stylesheet_are_shipped_with_the_package():
    setup = ast.parse((Path(__file__).parents[2] / "setup.py").read_text())
    (data,) = [node.value for node in ast.walk(setup) if isinstance(node, ast.keyword) and node.arg == "package_data"]
    patterns = ast.literal_eval(data)["fae_jax.report"]
    files = [entry.name for entry in ROOM.iterdir() if entry.is_file() and not entry.name.endswith(".py")]
    assert {"report.html", "report.css", "sweep.html", "prepare.html", "plot.svg"} <= set(files)
    assert all(any(fnmatch(name, pattern) for pattern in patterns) for name in files)
