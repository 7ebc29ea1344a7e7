"""The page as a whole: one HTML file that opens anywhere, offline, and needs nothing beside it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

import numpy as np
from PIL import Image

from fae_jax.files.paths import Path
from fae_jax.files.writing import write_atomically
from fae_jax.report import scores, stages, understanding
from fae_jax.report.pipeline import known_sizes
from fae_jax.report.reading import Embedded, Record, at, embed, finite, measured
from fae_jax.report.templates import render
from fae_jax.report.verdicts import chosen_set, judge_verdicts

HERO_ROWS, HERO_COLUMNS = 4, 5
PHASES = ("install", "encoder", "features", "pixels", "finetune", "cache", "generator", "sample", "evaluate")


def hero(record: Record) -> tuple[str, Embedded] | None:
    """A few samples, the classes in turn, from the set the verdict is about; and its name."""
    chosen = chosen_set(record) or "guided"
    drawn = [samples for samples in record.samples if samples.images is not None]
    if not drawn:
        return None
    samples = next((samples for samples in drawn if samples.name == chosen), drawn[-1])
    images, labels = np.asarray(samples.images), np.asarray(samples.labels)
    rank = np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        rank[labels == label] = np.arange(np.sum(labels == label))
    order = np.lexsort((labels, rank))[: HERO_ROWS * HERO_COLUMNS]
    height, width = images.shape[1:3]
    gap = max(width // 16, 1)
    rows = -(-len(order) // HERO_COLUMNS)
    strip = np.zeros((rows * (height + gap) - gap, HERO_COLUMNS * (width + gap) - gap, 4), np.uint8)
    for position, index in enumerate(order):
        row, column = divmod(position, HERO_COLUMNS)
        top, left = row * (height + gap), column * (width + gap)
        strip[top : top + height, left : left + width, :3] = images[index]
        strip[top : top + height, left : left + width, 3] = 255
    return samples.name, embed(Image.fromarray(strip))


def _example_classes(record: Record) -> str:
    """Numbers of one or two classes that can be asked for, "" where the generator is told none."""
    if record.setting("condition", "kind") == "none":
        return ""
    known = len(record.class_names or ()) or int(finite(record.setting("data", "classes")) or 10)
    return "3,7" if known > 7 else ",".join(map(str, range(min(known, 2))))


def make_page(record: Record, targets: Mapping[str, float] | None = None) -> str:
    """The whole page as HTML."""
    optional = {"post_training"} | (set() if record.setting("encoder", "train") is not False else {"encoder"})
    phases = [name for name in PHASES if name in record.timings]
    phases += [name for name in record.timings if name not in PHASES]
    names, chosen = record.class_names, chosen_set(record)
    return render(
        "report.html",
        record=record,
        name=str(record.setting("name") or record.workdir.resolve().name or "experiment"),
        workdir=shlex.quote(str(record.workdir)),
        encoder=str(record.setting("encoder", "name") or ""),
        verdicts=judge_verdicts(record, targets),
        chosen=chosen,
        scores=record.set_of(chosen) if chosen else {},
        probe=record.results.get("probe", {}),
        at=at,
        measured=measured,
        hero=hero(record),
        sizes=known_sizes(record),
        stages=[stages.view(stage, record) for stage in record.stages if stage.begun or stage.name not in optional],
        class_names=names,
        sets=[(samples, scores.class_rows(samples, names)) for samples in record.samples],
        per_class=scores.per_class(record),
        novelty=scores.novelty(record),
        understanding=understanding.tables(record),
        others=scores.others(record),
        other_scores=scores.other_scores,
        phases=phases,
        classes=_example_classes(record),
    )


def write_report(workdir: Path, targets: Mapping[str, float] | None = None) -> Path:
    """Draws `report.html` in a working directory from whatever it holds so far; returns its path.

    Args:
      workdir: of the experiment; nothing outside it is read.
      targets: score → what it has to reach (names as in `verdicts.DIGITS_TARGETS`); default: the quickstart's on
        digits, none on other data.

    Raises:
      FileNotFoundError: there is no such directory.
      OSError: it cannot be written; an earlier report is kept.
    """
    if not workdir.is_dir():
        raise FileNotFoundError(
            f"{workdir} is not a working directory; `fae run --config CONFIG --workdir {workdir}` makes it"
        )
    page = make_page(Record.read(workdir), targets)
    return write_atomically(workdir / "report.html", page)
