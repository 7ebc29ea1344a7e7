"""Indexes and checks raw data: says what it holds, what is left out and why.

In --out: summary.json and summary.html; for tar shards an index, so that later runs open at once and read the tars in
place; with --pack the images that are used, unchanged, in array_record files. Either is then a data path:
`--config.data.source=tar --config.data.path=OUT`, or `array_record`. Interrupted, the same command goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from fae_jax.data.prepare.checking import Filters, check_source
from fae_jax.data.prepare.summary import summarise
from fae_jax.data.sources.columns import Columns
from fae_jax.data.sources.kinds import KINDS, WITH_COLUMNS, open_source
from fae_jax.data.sources.packed import write_packed
from fae_jax.data.sources.stored import StoredSource
from fae_jax.data.sources.tars import TarSource
from fae_jax.data.sources.tfds import folder_and_split
from fae_jax.files.paths import local_path
from fae_jax.files.progress import duration, report_progress, say, tell
from fae_jax.files.writing import write_atomically, write_json
from fae_jax.section import validate

# what is asked of images by default; every field is an option
PRESETS = {
    "imagenet": Filters(),
    "cc12m": Filters(min_side=64, max_aspect=3.0, min_caption=3, max_caption=1000, min_letters=0.5, max_repeat=3),
    "folder": Filters(),
}
SAMPLE = 200  # images that are timed before the check begins


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", choices=[*PRESETS], help="how it is laid out")
    parser.add_argument("path", help="file, folder, pattern such as shards/{00000..01242}.tar, or gs://…")
    parser.add_argument("--out", required=True, metavar="DIR", help="where index, summary and packed images go")
    parser.add_argument(
        "--source",
        choices=[kind for kind in KINDS if kind != "digits"],
        help="how it is stored; default: by its files",
    )
    parser.add_argument("--classes", type=int, help="how many classes there must be; default: 1000 for imagenet")
    parser.add_argument("--pack", action="store_true", help="also copy the used images into array_record files")
    parser.add_argument("--threads", type=int, help="images decoded at a time; default: one per processor")
    for field in dataclasses.fields(Filters):
        name, kind = f"--{field.name}", type(field.default)
        if kind is bool:
            parser.add_argument("--drop_duplicates", action="store_true", help="use only one of identical files")
        else:
            values = ", ".join(f"{preset} {getattr(filters, field.name):g}" for preset, filters in PRESETS.items())
            parser.add_argument(name, type=kind, metavar="N", help=f"default: {values}")


def kind_of(path: str, dataset: str) -> str:
    """How a data set is stored, seen from its path.

    Raises:
      ValueError: it cannot be seen.
    """
    if dataset == "folder":
        return "folder"
    folder = Path(path).expanduser()
    endings = (".tar", ".parquet")
    ending = next((end for end in endings if path.endswith(end) or any(folder.glob(f"*{end}"))), None)
    if ending or (folder / "index.json").exists():
        return ending[1:] if ending else "tar"
    if (Path(folder_and_split(path)[0]).expanduser() / "dataset_info.json").exists():
        return "tfds"
    if (folder / "header.json").exists():
        return "array_record"
    if folder.is_dir():
        return "folder"
    raise ValueError(f"how {path} is stored cannot be seen; say it: --source {'|'.join(KINDS)}")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    columns = _columns(arguments.overrides)
    out = local_path(arguments.out, "--out")
    given = {f.name: getattr(arguments, f.name, None) for f in dataclasses.fields(Filters)}
    given["duplicates"] = False if arguments.drop_duplicates else None
    chosen = {name: value for name, value in given.items() if value is not None}
    filters = dataclasses.replace(PRESETS[arguments.dataset], **chosen)
    kind = arguments.source or kind_of(arguments.path, arguments.dataset)
    if kind == "tar":
        source: StoredSource = TarSource(arguments.path, split="train", holdout=0.0, seed=0, scanned=out / "scanned")
    else:
        opened = open_source(kind, path=arguments.path, split="train", holdout=0.0, seed=0, columns=columns)
        source = cast(StoredSource, opened)  # every kind but the digits, which need no preparing, is one
    classes_needed = arguments.classes or (1000 if arguments.dataset == "imagenet" else None)
    if classes_needed and len(source.classes) != classes_needed:
        raise ValueError(f"{arguments.path} has {len(source.classes)} classes, not {classes_needed}; see --classes")
    if arguments.dataset == "cc12m" and not source.captioned:
        other = ", or name its captions with --config.data.columns.caption" if kind in WITH_COLUMNS else ""
        raise ValueError(f"{arguments.path} is read by its classes; prepare it as imagenet{other}")
    _announce(source, filters)
    checked = check_source(
        source, filters, out / "checked", threads=arguments.threads, progress=report_progress("prepare, checked")
    )
    summary = summarise(source, checked)
    if not len(checked["used"]):
        raise ValueError(f"{arguments.path} holds no image that can be used: {_most_frequent(summary)}")
    if isinstance(source, TarSource) and not arguments.pack:
        source.index.keep(checked["used"]).save(out, {"classes": source.classes})
    if arguments.pack:
        write_packed(out, source, checked["used"], progress=report_progress("prepare, packed"))
    from fae_jax.report.templates import render  # the page's room brings JAX, which checking data does without

    write_json(out / "summary.json", summary)
    write_atomically(
        out / "summary.html", render("prepare.html", title=f"{arguments.dataset}: {arguments.path}", summary=summary)
    )
    tell(f"prepare: {summary['used']} of {summary['found']} images are used; see {out / 'summary.html'}")
    for reason, entry in summary["reasons"].items():
        tell(f"prepare: {entry['count']} left out: {reason}")
    counts = {name: summary[name] for name in ("found", "used", "skipped", "bytes", "duplicates")}
    return {"out": str(out), "source": kind, **counts}


def _columns(overrides: Sequence[tuple[str, str]]) -> Columns:
    """The columns of parquet and tfds, the only fields of the configuration that count here."""
    names = {name.removeprefix("data.columns."): text for name, text in overrides}
    for name in names.keys() - {field.name for field in dataclasses.fields(Columns)}:
        raise ValueError(
            f"`fae prepare` has no configuration but data.columns.image, .label and .caption, got {name}; "
            "its options are in `fae prepare --help`"
        )
    columns = Columns(**names)
    validate(columns, "data.columns")
    return columns


def _announce(source: StoredSource, filters: Filters) -> None:
    """Says how much there is, and how long it will take at the rate of a sample."""
    places = np.unique(np.linspace(0, len(source) - 1, SAMPLE).astype(int))
    begun, size = time.monotonic(), 0
    for place in places:
        try:
            size += len(source.stored(int(place)).data)
            source[int(place)]
        except (OSError, ValueError):
            continue
    rate = len(places) / (time.monotonic() - begun)
    total = size / len(places) * len(source)
    say(
        f"prepare: {len(source):,} images, about {total / 1e9:,.2f} GB; "
        f"one thread decodes {rate:,.0f} images/s, so at most {duration(len(source) / rate)}"
    )


def _most_frequent(summary: dict[str, Any]) -> str:
    return next(iter(summary["reasons"]), "it is empty")
