"""What lies in a working directory, read so that nothing half-written or missing stops the page.

A run may be under way, killed in the middle of a line, or not begun: whatever can be read is shown, the rest is left
out. Only files inside the working directory are opened, and none is changed.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import io
import json
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from fae_jax.files.image_archives import ImageArchive
from fae_jax.files.paths import Path
from fae_jax.files.storage import stat
from fae_jax.stages.figures import CAPTION_KEY
from fae_jax.training.monitoring import read_metrics

STAGES = ("encoder", "features", "pixels", "finetune", "generator", "post_training")
LARGEST_SAMPLES = 64 * 2**20  # bytes of a samples.npz that is still opened for the page
WIDEST = 1440  # pixels; wider images are reduced
HEAVIEST = 900_000  # bytes of a PNG from which it is stored as JPEG
ROOM, LARGEST_FACTOR = 1090, 4  # pixels of the page's column; how far a small image is enlarged


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object; empty where the file is missing, cut short or something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def at(values: Any, *keys: str) -> Any:
    """`values[keys[0]][keys[1]]…`, or None where the way ends before."""
    for key in keys:
        if not isinstance(values, Mapping) or key not in values:
            return None
        values = values[key]
    return values


def branch(values: Any, *keys: str) -> dict[str, Any]:
    """As `at`, but only an object counts; anything else is empty."""
    value = at(values, *keys)
    return dict(value) if isinstance(value, Mapping) else {}


def finite(value: Any) -> float | None:
    """A finite number; anything else is None."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if good else None


def measured(values: Any, *keys: str) -> float | None:
    """As `at`, but only a finite number counts."""
    return finite(at(values, *keys))


def read_series(path: Path) -> dict[str, list[tuple[int, float]]]:
    """metrics.jsonl as name → [(step, value)], by step; of a step written twice, after a restart, the last counts.

    Values that are not finite numbers are left out, and lines as in `read_metrics`.
    """
    series: dict[str, dict[int, float]] = {}
    with contextlib.suppress(OSError):
        for row in read_metrics(path):
            for name in row:
                value = measured(row, name)
                if name != "step" and value is not None:
                    series.setdefault(name, {})[row["step"]] = value
    return {name: sorted(values.items()) for name, values in series.items()}


@dataclasses.dataclass(frozen=True)
class Embedded:
    """An image that stands inside the page.

    Attributes:
      source: a data URI.
      width, height: in pixels, as stored.
      caption: what its file says it shows, or "".
    """

    source: str
    width: int
    height: int
    caption: str = ""

    @property
    def widest(self) -> int:
        """Pixels it may be as wide as: small ones are enlarged by a whole factor where there is room."""
        return self.width * min(max(ROOM // self.width, 1), LARGEST_FACTOR)

    @property
    def look(self) -> str:
        """CSS classes: `sharp` keeps the pixels of small images, `broad` ones may scroll on a narrow screen."""
        return " ".join(["sharp"] * (self.width <= ROOM // 2) + ["broad"] * (self.width > 2.5 * self.height))


def embed(image: Image.Image, caption: str = "") -> Embedded:
    """An image as a data URI: PNG reduced to `WIDEST`, or JPEG where that is heavy and opaque."""
    if image.width > WIDEST:
        image = image.resize((WIDEST, max(round(image.height * WIDEST / image.width), 1)), Image.Resampling.LANCZOS)
    buffer, kind = io.BytesIO(), "png"
    image.save(buffer, "PNG", compress_level=7)
    if buffer.tell() > HEAVIEST and image.mode in ("RGB", "L"):
        buffer, kind = io.BytesIO(), "jpeg"
        image.save(buffer, "JPEG", quality=90)
    return Embedded(_uri(buffer.getvalue(), kind), image.width, image.height, caption)


def _uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def read_image(path: Path) -> Embedded | None:
    """The image at `path`; None where there is none that can be read."""
    try:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            words = str(image.info.get(CAPTION_KEY, ""))
            if image.format == "PNG" and image.width <= WIDEST and len(content) <= HEAVIEST:
                return Embedded(_uri(content, "png"), image.width, image.height, words)
            mode = "RGBA" if "A" in image.getbands() or "transparency" in image.info else "RGB"
            return embed(image.convert(mode), words)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """One training stage: its metrics by name, and its preview images by step."""

    name: str
    series: dict[str, list[tuple[int, float]]]
    previews: list[tuple[int, Embedded]]
    caption: str

    @property
    def begun(self) -> bool:
        """Whether anything at all was logged or drawn."""
        return bool(self.series or self.previews)

    def last(self, name: str) -> float | None:
        """The last value of a metric."""
        values = self.series.get(name)
        return values[-1][1] if values else None

    @property
    def step(self) -> int | None:
        """The last step that was logged."""
        return max((values[-1][0] for values in self.series.values()), default=None)


def _read_stage(folder: Path, previews: int) -> Stage:
    numbered = []
    for path in folder.glob("previews/step_*.png"):
        match = re.fullmatch(r"step_(\d+)\.png", path.name)
        if match:
            numbered.append((int(match[1]), path))
    numbered.sort()
    if len(numbered) > previews:
        chosen = np.linspace(0, len(numbered) - 1, previews).round().astype(int)
        numbered = [numbered[position] for position in chosen]
    images = [(step, read_image(path)) for step, path in numbered]
    return Stage(
        name=folder.name,
        series=read_series(folder / "metrics.jsonl"),
        previews=[(step, image) for step, image in images if image is not None],
        caption=str(read_object(folder / "previews/README.json").get("caption", "")),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleSet:
    """One folder of samples: its grid, how it was made, and a few images with their labels where small enough."""

    name: str
    settings: dict[str, Any]
    grid: Embedded | None
    images: np.ndarray | None
    labels: np.ndarray | None


def _read_archive(path: Path) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
    """Images and labels of a samples.npz; None where it is large or anything else."""
    try:
        if stat(str(path)).size > LARGEST_SAMPLES:
            return None, None
        archive = ImageArchive.open(str(path))
        images, labels = np.concatenate(list(archive.batches(archive.shape[0]))), archive.labels
    except Exception:  # zipfile and NumPy raise almost anything on damaged files
        return None, None
    return (images, labels) if labels is not None else (None, None)


def _read_samples(folder: Path) -> SampleSet:
    images, labels = _read_archive(folder / "samples.npz")
    return SampleSet(
        name=folder.name,
        settings=read_object(folder / "settings.json"),
        grid=read_image(folder / "grid.png"),
        images=images,
        labels=labels,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """Everything the page shows.

    Attributes:
      workdir: where it was read.
      config, sizes, timings: the files of these names.
      stages: of `STAGES`, in order, begun or not.
      latents: headers of the latent caches.
      samples: by folder name; "unguided" and "guided" first.
      results: evaluation/*.json by stem.
      figures: evaluation/figures/*.png by stem.
    """

    workdir: Path
    config: dict[str, Any]
    sizes: dict[str, Any]
    timings: dict[str, float]
    stages: list[Stage]
    latents: list[dict[str, Any]]
    samples: list[SampleSet]
    results: dict[str, dict[str, Any]]
    figures: dict[str, Embedded]

    @classmethod
    def read(cls, workdir: Path, *, previews: int = 6) -> Record:
        """Reads whatever there is, at most `previews` images of each stage."""
        timings = read_object(workdir / "timings.json")
        folders = sorted((path for path in workdir.glob("samples/*") if path.is_dir()), key=_samples_order)
        headers = (read_object(path) for path in sorted(workdir.glob("latents/*/header.json")))
        results = {path.stem: read_object(path) for path in sorted(workdir.glob("evaluation/*.json"))}
        figures = {path.stem: read_image(path) for path in sorted(workdir.glob("evaluation/figures/*.png"))}
        return cls(
            workdir=workdir,
            config=read_object(workdir / "config.json"),
            sizes=read_object(workdir / "sizes.json"),
            timings={name: seconds for name in timings if (seconds := measured(timings, name)) is not None},
            stages=[_read_stage(workdir / name, previews) for name in STAGES],
            latents=[header for header in headers if header],
            samples=[_read_samples(folder) for folder in folders],
            results={name: result for name, result in results.items() if result},
            figures={name: image for name, image in figures.items() if image is not None},
        )

    def setting(self, *keys: str) -> Any:
        """A field of config.json by its path; None where this run has none of that name."""
        return at(self.config, *keys)

    def set_of(self, name: str) -> dict[str, Any]:
        """The generation scores of a set of samples; empty where it was not scored."""
        return branch(self.results, "generation", "sets", name)

    @property
    def class_names(self) -> list[str] | None:
        """Names of the classes, as the generation scores or the latent cache have them."""
        cached = self.latents[-1].get("classes") if self.latents else None
        for names in (at(self.results, "generation", "class_names"), cached):
            if isinstance(names, list) and names:
                return [str(name) for name in names]
        return None


def _samples_order(folder: Path) -> tuple[int, str]:
    known = ("unguided", "guided")
    return (known.index(folder.name) if folder.name in known else len(known), folder.name)
