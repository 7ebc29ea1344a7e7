"""What every configuration takes on TPU slices, from the TPU compiler; no TPU needed, only the extra `tpu`.

    python benchmarks/scaling.py                    all configurations × stages × slices; 16 to 256 chips
    python benchmarks/scaling.py --weights inception_photographs=inception.npz      its encoder needs a file
    python benchmarks/scaling.py --seconds 200      as far as it comes in that time; the next call goes on from there

Two programs are compiled at a time. The compiler makes its full effort, which is what a run gets, for the paper's
features, pixels and generator on four slices and for its generator on 16 to 256 chips; for all else little
(`fae compile --quick`). Blocks are scanned. Figures are kept in docs/scaling.json, a row per compilation with its
date; of them the table in docs/scaling.md and the plot docs/scaling.svg are made. A row is compiled again when it is
deleted.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fae_jax.compiler.child import ask
from fae_jax.compiler.programs import STAGES
from fae_jax.config import load_config, override, shipped_configs
from fae_jax.files.writing import write_atomically, write_json

DOCS = Path(__file__).parents[1] / "docs"
SLICES = ("v4-16", "v5e-16", "v5p-16", "v6e-8")
SMALL = ("v4-8", "v5e-4", "v5p-8", "v6e-4")  # four chips each, for what is made for a laptop
GROWTH = ("v5e-16", "v5e-32", "v5e-64", "v5e-128", "v5e-256")  # the main configuration's generator on each
HALVED = [("mesh.tensor", "2")]  # fsdp of 256 alone sends half as much again (docs/scaling.md)
MAIN = "imagenet256_dinov2g"
BEGIN, END = "<!-- table made by benchmarks/scaling.py -->", "<!-- end of table -->"
GIB = 2**30


def wanted() -> Iterator[tuple[str, str, str, bool]]:
    """(configuration, stage, slice, quick), what matters most first."""
    yield from ((MAIN, stage, slice, False) for stage in ("generator", "features", "pixels") for slice in SLICES)
    yield from ((MAIN, "generator", slice, False) for slice in GROWTH if slice not in SLICES)
    yield from ((MAIN, stage, slice, True) for stage in ("finetune", "cache", "sample") for slice in SLICES)
    configs = sorted(file.stem for file in shipped_configs().glob("*.py"))
    others = [name for name in configs if name not in (MAIN, "__init__", "quickstart")]
    for name in others:
        yield from ((name, stage, slice, True) for stage in STAGES for slice in SMALL)


def measure(seconds: float, weights: dict[str, str]) -> list[dict[str, Any]]:
    """Every row that is there already, and those begun within `seconds`.

    Args:
      weights: configuration → file, where an encoder cannot be built without.
    """
    file = DOCS / "scaling.json"
    rows = json.loads(file.read_text()) if file.is_file() else []
    done = {(row["config"], row["stage"], row["slice"], row["quick"]) for row in rows}
    deadline = time.monotonic() + seconds

    def compile_one(wish: tuple[str, str, str, bool]) -> None:
        name, stage, slice, quick = wish
        if time.monotonic() > deadline:
            return
        given = [("compute.scan", "True"), *([("encoder.weights", weights[name])] if name in weights else [])]
        given += HALVED if slice == GROWTH[-1] else []
        figures = ask(override(load_config(name), given), stage, slice, quick=quick)
        rows.append({"config": name, "slice": slice, **figures, "quick": quick})
        rows[-1]["date"] = datetime.date.today().isoformat()
        write_json(file, sorted(rows, key=lambda row: (row["config"], row["stage"], row["slice"], row["quick"])))
        print(f"{name} {stage} {slice}: {figures['peak'] / GIB:.2f} GiB, {figures['seconds']:.0f} s", flush=True)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(compile_one, [wish for wish in wanted() if wish not in done]))
    return rows


def sent(row: dict[str, Any]) -> float:
    """GB a chip sends in a call."""
    return sum(each["bytes"] for each in row["collectives"].values()) / 1e9


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = [
        "| configuration | stage | slice | chips | batch | state | temporaries | peak | sent, GB | TFLOP | effort |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    place = lambda row: (row["config"], STAGES.index(row["stage"]), row["slice"][:3], row["devices"], row["quick"])
    for row in sorted(rows, key=place):
        peak = f"{row['peak'] / GIB:.2f} of {row['memory'] / GIB:.2f}"
        peak = peak if row["fits"] else f"**{peak}**"
        lines.append(
            f"| {row['config']} | {row['stage']} | {row['slice']} | {row['devices']} | {row['batch']} | "
            f"{row['state'] / GIB:.2f} | {row['temporaries'] / GIB:.2f} | {peak} | {sent(row):.2f} | "
            f"{row['flops'] / row['devices'] / 1e12:.1f} | {'little' if row['quick'] else 'full'} |"
        )
    total = sum(row["seconds"] for row in rows)
    lines.append(f"\n{len(rows)} programs; {total / 60:.0f} minutes of compilation, two at a time.")
    return "\n".join(lines)


def plot(rows: list[dict[str, Any]]) -> str:
    """State and traffic per chip over chips, both axes logarithmic, as SVG."""
    main = [row for row in rows if row["config"] == MAIN and row["stage"] == "generator"]
    found = sorted((row for row in main if row["slice"] in GROWTH), key=lambda row: row["devices"])
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
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no compilation after so many")
    parser.add_argument(
        "--weights", action="append", default=[], metavar="CONFIG=FILE", help="weights of its encoder"
    )
    options = parser.parse_args()
    rows = measure(options.seconds, dict(word.split("=", 1) for word in options.weights))
    page = DOCS / "scaling.md"
    before, _, rest = page.read_text().partition(BEGIN)
    write_atomically(page, f"{before}{BEGIN}\n{table(rows)}\n{END}{rest.partition(END)[2]}")
    write_atomically(DOCS / "scaling.svg", plot(rows))


if __name__ == "__main__":
    main()
