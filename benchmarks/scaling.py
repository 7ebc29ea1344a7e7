"""What every configuration takes on TPU slices, from the TPU compiler; no TPU needed, only the extra `tpu`.

    python benchmarks/scaling.py                    all configurations × stages × slices; 16 to 256 chips
    python benchmarks/scaling.py --seconds 200      as far as it comes in that time; the next call goes on from there

Figures are kept in docs/scaling.json, a row per compilation with its date; from them the table in docs/scaling.md and
the plot docs/scaling.svg are made. A row is compiled again when it is deleted.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fae_jax.compiler.child import ask
from fae_jax.compiler.programs import STAGES
from fae_jax.configuration import load_config, shipped_configs
from fae_jax.workdir import write_atomically, write_json

DOCS = Path(__file__).parents[1] / "docs"
SLICES = ("v4-16", "v5e-16", "v5p-16", "v6e-8")
GROWTH = ("v5e-16", "v5e-32", "v5e-64", "v5e-128", "v5e-256")  # the main configuration's generator on each
MAIN = "imagenet256_dinov2g"
BEGIN, END = "<!-- table made by benchmarks/scaling.py -->", "<!-- end of table -->"
GIB = 2**30


def wanted() -> Iterator[tuple[str, str, str]]:
    """(configuration, stage, slice), what matters most first."""
    yield from ((MAIN, stage, slice) for stage in ("generator", "features", "pixels") for slice in SLICES)
    yield from ((MAIN, "generator", slice) for slice in GROWTH[1:])
    configs = sorted(file.stem for file in shipped_configs().glob("*.py"))
    others = [name for name in configs if name not in (MAIN, "__init__", "quickstart")]
    for name in (MAIN, *others):
        yield from ((name, stage, slice) for stage in STAGES for slice in SLICES)


def measure(seconds: float) -> list[dict[str, Any]]:
    """Every row that is there already, and those that `seconds` suffice for."""
    file = DOCS / "scaling.json"
    rows = json.loads(file.read_text()) if file.is_file() else []
    begun, longest = time.monotonic(), 0.0
    for name, stage, slice in dict.fromkeys(wanted()):
        if any((row["config"], row["stage"], row["slice"]) == (name, stage, slice) for row in rows):
            continue
        if time.monotonic() - begun + longest > seconds:
            break
        started = time.monotonic()
        figures = ask(load_config(name), stage, slice)
        longest = max(longest, time.monotonic() - started)
        rows.append({"config": name, "slice": slice, **figures, "date": datetime.date.today().isoformat()})
        write_json(file, rows)
        print(f"{name} {stage} {slice}: {figures['peak'] / GIB:.2f} GiB, {figures['seconds']:.0f} s", flush=True)
    return rows


def sent(row: dict[str, Any]) -> float:
    """GB a chip sends in a call."""
    return sum(each["bytes"] for each in row["collectives"].values()) / 1e9


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = [
        "| configuration | stage | slice | chips | batch | state | temporaries | peak of HBM | sent, GB | TFLOP |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    place = lambda row: (row["config"], STAGES.index(row["stage"]), row["slice"][:3], row["devices"])
    for row in sorted(rows, key=place):
        temporaries = "–" if row["temporaries"] is None else f"{row['temporaries'] / GIB:.2f}"
        peak = f"{row['peak'] / GIB:.2f} of {row['memory'] / GIB:.1f}"
        peak = peak if row["fits"] else f"**{peak}**"
        lines.append(
            f"| {row['config']} | {row['stage']} | {row['slice']} | {row['devices']} | {row['batch']} | "
            f"{row['state'] / GIB:.2f} | {temporaries} | {peak} | {sent(row):.2f} | "
            f"{row['flops'] / row['devices'] / 1e12:.1f} |"
        )
    total = sum(row["seconds"] for row in rows)
    lines.append(f"\n{len(rows)} programs, {total / 60:.0f} minutes of compilation.")
    return "\n".join(lines)


def plot(rows: list[dict[str, Any]]) -> str:
    """State and traffic per chip over chips, both axes logarithmic, as SVG."""
    found = sorted(
        (row for row in rows if row["config"] == MAIN and row["stage"] == "generator" and row["slice"] in GROWTH),
        key=lambda row: row["devices"],
    )
    width, height, left, low, high = 640, 320, 60, 0.02, 20.0
    x = lambda chips: left + (width - left - 150) * math.log2(chips / 16) / 4
    y = lambda value: height - 40 - (height - 60) * math.log(value / low) / math.log(high / low)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        *(f'<line x1="{left}" x2="{width - 150}" y1="{y(v):.1f}" y2="{y(v):.1f}" stroke="#ddd"/>'
          f'<text x="{left - 8}" y="{y(v) + 4:.1f}" text-anchor="end">{v:g}</text>' for v in (0.02, 0.1, 0.5, 2, 10)),
        *(f'<text x="{x(c):.1f}" y="{height - 20}" text-anchor="middle">{c}</text>' for c in (16, 32, 64, 128, 256)),
        f'<text x="{left}" y="14">per chip and step, {MAIN}, generator, 512 images</text>',
        f'<text x="{(width - 100) / 2:.0f}" y="{height - 4}" text-anchor="middle">chips (v5e)</text>',
    ]  # fmt: skip
    lines = (("state, GiB", "#1f6feb", lambda row: row["state"] / GIB), ("sent, GB", "#d1242f", sent))
    for name, colour, value in lines:
        points = [(x(row["devices"]), y(value(row))) for row in found]
        if points:
            path = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
            parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
            parts += [f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3.5" fill="{colour}"/>' for px, py in points]
            parts.append(
                f'<text x="{points[-1][0] + 10:.1f}" y="{points[-1][1] + 4:.1f}" fill="{colour}">{name}</text>'
            )
    return "\n".join([*parts, "</svg>"]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--seconds", type=float, default=math.inf, help="stop before a compilation that would end later"
    )
    rows = measure(parser.parse_args().seconds)
    page = DOCS / "scaling.md"
    before, _, rest = page.read_text().partition(BEGIN)
    write_atomically(page, f"{before}{BEGIN}\n{table(rows)}\n{END}{rest.partition(END)[2]}")
    write_atomically(DOCS / "scaling.svg", plot(rows))


if __name__ == "__main__":
    main()
