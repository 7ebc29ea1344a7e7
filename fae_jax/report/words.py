"""Numbers and names as a reader wants them: three digits, minutes and seconds, names as words."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

Number = int | float
PRINTED_IN_CAPITALS = {"ema", "fid", "gan", "kl", "lpips", "psnr", "ssim"}


class Table(NamedTuple):
    """Heads and rows of text, the first cell of each row its head; and (term, value) pairs that stand below."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    facts: Sequence[tuple[str, str]] = ()


def number(value: Number | None, digits: int = 3) -> str:
    """Three significant digits, thousands separated, no needless exponent; "–" for nothing."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == int(value) and abs(value) < 1e9:
        return f"{int(value):,}"
    magnitude = math.floor(math.log10(abs(value)))
    if magnitude < -4 or magnitude >= 9:
        return f"{value:.{digits - 1}e}"
    return f"{value:,.{max(digits - 1 - magnitude, 0)}f}"


def brief(value: Number) -> str:
    """A round number without needless zeros: 0.5, 20, 1,000, 1e-05."""
    return f"{value:,.10g}" if 1e-4 <= abs(value) < 1e9 or value == 0 else f"{value:g}"


def without_zeros(text: str) -> str:
    """A number's text, its unit after it, without the zeros that end it: 92.0 % → 92 %."""
    return re.sub(r"(\.\d*?)0+(?=\D|$)", r"\1", text).replace(". ", " ").rstrip(".")


def percent(fraction: Number | None) -> str:
    """A fraction as a percentage with one decimal; "–" for nothing."""
    return "–" if fraction is None else f"{100 * fraction:.1f} %"


def _is_interval(part: Any) -> bool:
    fits = isinstance(part, list) and len(part) in (3, 4) and all(isinstance(each, str) for each in part[3:])
    return fits and all(isinstance(value, int | float) for value in part[:3])


def guidance_words(guidance: Any) -> str:
    """A guidance setting as words: none, a weight, or weights by time."""
    if guidance in (None, "none", 1, 1.0):
        return "none"
    if isinstance(guidance, list) and all(_is_interval(part) for part in guidance):
        parts = (
            " ".join(
                [*(kind.replace("_", "-") for kind in kinds), f"{brief(weight)} on [{brief(low)}, {brief(high)}]"]
            )
            for low, high, weight, *kinds in sorted(guidance)
        )
        return ", ".join(parts)
    return brief(guidance) if isinstance(guidance, int | float) else str(guidance)


def points(value: Number | None) -> str:
    """A difference of percentages; "–" for nothing."""
    return "–" if value is None else f"{number(value)} point{'' if value == 1 else 's'}"


def decibels(value: Number | None) -> str:
    """One decimal, as PSNR is printed; "–" for nothing."""
    return "–" if value is None else f"{value:.1f} dB"


def duration(seconds: Number | None) -> str:
    """Seconds as a person says them: 0.8 s, 42 s, 3 min 05 s, 2 h 10 min, 3 d 4 h."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s".removesuffix(" 00 s")
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def size(count: Number | None) -> str:
    """Bytes in the unit that keeps them short."""
    if count is None:
        return "–"
    if count < 1000:
        return f"{count:.0f} bytes"
    power = min(int(math.log10(count)) // 3, 4)
    return f"{count / 1000**power:.3g} {('', 'kB', 'MB', 'GB', 'TB')[power]}"


def millions(count: Number | None) -> str:
    """Parameters: 812, 52.4 k, 1.32 M, 675 M, 1.40 B."""
    if count is None:
        return ""
    for limit, divisor, unit in ((1e3, 1, ""), (1e6, 1e3, " k"), (1e9, 1e6, " M")):
        if count < limit:
            return f"{count / divisor:.3g}{unit}" if unit else f"{count:.0f}"
    return f"{count / 1e9:.3g} B"


def spoken(name: str) -> str:
    """A field's name as words, with the abbreviations that papers print in capitals."""
    words = name.replace("/", " · ").replace("_", " ").split()
    return " ".join(word.upper() if word in PRINTED_IN_CAPITALS else word for word in words)


def heading(name: str) -> str:
    """`spoken`, with a capital letter in front."""
    words = spoken(name)
    return words[:1].upper() + words[1:]


def shape(values: Sequence[Any] | None) -> str:
    """4×4×16."""
    return "×".join(str(value) for value in values) if values else ""
