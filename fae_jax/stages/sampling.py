"""Samples of a model, drawn into a folder a batch at a time: samples.npz, grid.png, settings.json.

Image i is a function of (seed, i, its label or prompt) alone. Of H hosts that sample one set of n together, h draws

    ⌊n h / H⌋ ≤ i < ⌊n (h + 1) / H⌋                                                        (1)

and leaves it beside samples.npz, into which the first host puts all in order. None ever holds more than a batch.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from fae_jax.data.pixels import to_uint8
from fae_jax.data.prompts import ByPrompt, write_png
from fae_jax.diffusion.guidance import of_kind
from fae_jax.files.image_archives import writing_images
from fae_jax.files.paths import Path
from fae_jax.files.writing import json_hash, whole_file, write_file, write_json
from fae_jax.model import FAE
from fae_jax.nn.params import count
from fae_jax.parallel.hosts import gather_text, is_first, wait_for_all
from fae_jax.section import seed_range
from fae_jax.stages.figures import GRID_COLUMNS, GRID_ROWS, class_grid

NAME = 24  # letters of a prompt in the name of a file and beside a row of a figure
Drawn = tuple[int, UInt8[np.ndarray, "k y x 3"], Int[np.ndarray, " k"]]  # position of the first, images, labels


def share(total: int, host: int | None = None, hosts: int | None = None) -> tuple[int, int]:
    """The first position of a host's share, and the one after its last, equation (1); of this host by default."""
    host = jax.process_index() if host is None else host
    hosts = jax.process_count() if hosts is None else hosts
    return total * host // hosts, total * (host + 1) // hosts


def choose_labels(classes: Sequence[int], number: int, policy: str, seed: int) -> np.ndarray:
    """`number` labels: "balanced", the classes in turn, as many of each, or "random", each drawn by itself."""
    if policy == "random":
        return np.random.default_rng(seed).choice(np.asarray(classes, np.int32), number)
    return np.resize(np.asarray(classes, np.int32), number)


def mean_evaluations(spent: Sequence[Int[np.ndarray, " _"]]) -> float:
    """The mean over the images of all hosts; `spent` are the evaluations of this host's, by batch."""
    own = np.concatenate([np.zeros(0), *spent])
    totals = [json.loads(text) for text in gather_text(json.dumps([own.sum(), len(own)]))]
    total, number = np.sum(totals, axis=0)
    return float(total / number)


def own_sampling(config: Any) -> dict[str, Any]:
    """The fields of a generator's own section that only sampling reads."""
    section = getattr(config.generator, config.generator.kind, None)
    fields = dataclasses.fields(section) if section else ()
    return {field.name: getattr(section, field.name) for field in fields if field.metadata["operational"]}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drawing:
    """A set of samples, one image per label: drawn while it is iterated, and kept in `folder` as it comes. Of a model
    that reads text, labels number `prompts`.

    Iterating gives (position of the first, images uint8 (k, y, x, 3), labels (k,)): all of them, or where hosts
    sample together this one's.

    Attributes:
      fae: the model.
      folder: where they go.
      labels: what is asked for.
      prompts, negative_prompt: see `FAE.generate`.
      sampler, steps, guidance: see `FAE.generate`.
      single: as single files too, in place of those of an earlier drawing.
      layout: what else takes in all images in order, and writes files in place of those of an earlier drawing.
      seed: of all noise.
      ema: see `FAE.generate`.
      progress: told how many images there are, after each batch.
    """

    fae: FAE
    folder: Path
    labels: Int[np.ndarray, " n"]
    prompts: Sequence[str] | None = None
    negative_prompt: str = ""
    sampler: str | None = None
    steps: int | None = None
    guidance: Any = "config"
    single: bool = False
    layout: ByPrompt | None = None
    seed: int = 0
    ema: str | None = ""
    progress: Callable[[int], None] | None = None

    def __post_init__(self) -> None:
        """Raises ValueError: a label, the seed or a value cannot work."""
        problem = seed_range(self.seed)
        if problem:
            raise ValueError(f"seed {problem}, got {self.seed!r}")
        self.fae.generator.condition.request(self.labels if self.prompts is None else self.prompts)
        self.fae.against(self.negative_prompt)
        _ = self.settings

    @property
    def names(self) -> Sequence[str]:
        """What each label is called."""
        return (self.fae.classes or ("all",)) if self.prompts is None else self.prompts

    @functools.cached_property
    def settings(self) -> Any:
        """The section `sampling` that they are drawn with."""
        return self.fae.settings(guidance=self.guidance, sampler=self.sampler, steps=self.steps)

    @property
    def origin(self) -> dict[str, Any]:
        """How they are made: all that decides what the images are."""
        fae, settings = self.fae, self.settings
        kind = fae.config.generator.kind
        train_shift = getattr(getattr(fae.config.generator, kind, None), "train_shift", None)
        heeded = getattr(fae.generator, "heeds", [field.name for field in dataclasses.fields(settings)])
        # a batch decides no image, and labels stand under their own name
        own = {name: getattr(settings, name) for name in heeded if name not in ("batch", "labels")}
        return {
            **own,
            **own_sampling(fae.config),
            "function_evaluations": fae.generator.evaluations(settings),
            "guidance": fae.config.sampling.guidance if self.guidance == "config" else self.guidance,
            "label_policy": settings.labels,
            **self._text,
            "seed": self.seed,
            **fae.parts.read_generator.get(self.ema, {}),
            "train_shift": train_shift,
            "dtype": settings.dtype or fae.config.compute.dtype,
            "weights": self._weights(),
        }

    @functools.cached_property
    def evaluations(self) -> int | float:
        """Network evaluations of a sample, once all are drawn; asked for by all hosts at once."""
        known = self.fae.generator.evaluations(self.settings)
        return mean_evaluations(self._spent) if known is None else known

    @functools.cached_property
    def _spent(self) -> list[np.ndarray]:
        """Evaluations of each image of this host's, by batch, where they are known only as it is drawn."""
        return []

    @property
    def result(self) -> dict[str, Any]:
        """`origin`, and how many evaluations that took."""
        return {**self.origin, "function_evaluations": self.evaluations}

    @property
    def _text(self) -> dict[str, Any]:
        """What is asked for in words, the tower that reads it, and which prompts it reads in part."""
        if self.prompts is None:
            return {}
        condition: Any = self.fae.generator.condition
        told = {"prompts": len(self.prompts), "prompts_hash": json_hash(list(self.prompts)), **condition.identity}
        told |= {"prompts_cut": len(condition.cut(self.prompts))}
        return {"text": {**told, "negative_prompt": self.negative_prompt}}

    def _weights(self) -> dict[str, str]:
        weaker = ("guide",) if of_kind(self.settings.guidance, "auto") else ()
        return self.fae.hashes((*self.fae.tokenizer.decodes, "generator", *weaker), self.ema)

    def __iter__(self) -> Iterator[Drawn]:
        self._weights()  # reads them, on all hosts at once
        if self.single and is_first():
            for earlier in (self.folder / "images").glob("*-*.png"):
                earlier.unlink()
        if self.layout and is_first():
            self.layout.clear()
        wait_for_all("earlier images removed")
        yield from self._kept() if is_first() else self._handed_over()
        wait_for_all("samples drawn")

    def _drawn(self) -> Iterator[Drawn]:
        """This host's share."""
        first, last = share(len(self.labels))
        if first == last:
            return
        place, labels = first, self.labels[first:last]
        asked: Any = labels if self.prompts is None else [self.prompts[label] for label in labels]
        pieces = self.fae.images(
            self.fae.generator.condition.request(asked),
            self.settings,
            seed=self.seed,
            ema=self.ema,
            first=first,
            against=self.fae.against(self.negative_prompt),
            progress=self.progress,
            counted=self._spent.append,
        )
        for piece in pieces:
            images = to_uint8(piece)
            told = self.labels[place : place + len(images)]
            if self.single:
                self._write_single(place, images, told)
            yield place, images, told
            place += len(images)

    def _kept(self) -> Iterator[Drawn]:
        """The first host's share, and then the others' put behind it."""
        size = self.fae.config.data.image_size
        grid = GridImages(self.labels)
        with writing_images(self.folder / "samples.npz", self.labels, (size, size)) as write:

            def add(images: UInt8[np.ndarray, "k y x 3"]) -> None:
                write(images)
                grid.add(images)
                if self.layout:
                    self.layout.add(images)

            for place, images, labels in self._drawn():
                add(images)
                yield place, images, labels
            wait_for_all("every host's samples drawn")
            _ = self.evaluations
            for host in range(1, jax.process_count()):
                first, last = share(len(self.labels), host)
                with self._part(host).open("rb") as file:
                    for start in range(first, last, self.settings.batch):
                        rows = min(self.settings.batch, last - start)
                        images = np.frombuffer(file.read(rows * size * size * 3), np.uint8).reshape(-1, size, size, 3)
                        add(images)
                self._part(host).unlink()
        drawn = grid.draw([name[:NAME] for name in self.names])
        write_file(self.folder / "grid.png", lambda file: drawn.save(file, "PNG"))
        if self.prompts is not None:
            write_json(self.folder / "prompts.json", list(self.prompts))
        write_json(self.folder / "settings.json", {**self.result, "count": len(self.labels)})

    def _handed_over(self) -> Iterator[Drawn]:
        """Another host's share, left for the first."""
        with whole_file(self._part(jax.process_index())) as file:
            for place, images, labels in self._drawn():
                file.write(images.tobytes())
                yield place, images, labels
        wait_for_all("every host's samples drawn")
        _ = self.evaluations

    def _part(self, host: int) -> Path:
        return self.folder / f"part-{host}"

    def _write_single(self, place: int, images: np.ndarray, labels: np.ndarray) -> None:
        names = [re.sub(r"[^\w.-]+", "_", name[:NAME]) for name in self.names]
        for number, (image, label) in enumerate(zip(images, labels, strict=True), place):
            path = self.folder / "images" / f"{number:06d}-{names[label]}.png"
            write_png(path, image)


class GridImages:
    """Of a stream of images those that `class_grid` shows."""

    def __init__(self, labels: Int[np.ndarray, " n"]):
        rows = np.unique(labels)[:GRID_ROWS]
        self._places = np.sort(np.concatenate([np.flatnonzero(labels == row)[:GRID_COLUMNS] for row in rows]))
        self._labels, self._seen = labels, 0
        self._images: list[np.ndarray] = []

    def add(self, images: UInt8[np.ndarray, "k y x 3"]) -> None:
        """Takes in the next images."""
        here = self._places[(self._places >= self._seen) & (self._places < self._seen + len(images))]
        self._images.append(images[here - self._seen])
        self._seen += len(images)

    def draw(self, classes: Sequence[str]) -> Image.Image:
        """The figure; `classes` are their names by label."""
        return class_grid(np.concatenate(self._images), self._labels[self._places], classes)


def write_sizes(fae: FAE, root: Path) -> None:
    """Writes `sizes.json`: shapes of image, features and latent, and parameters by network."""
    size, tokenizer = fae.config.data.image_size, fae.tokenizer
    parameters = {part: count(tokenizer.shapes(part)) for part in (*tokenizer.encodes, *tokenizer.decodes)}
    generator = fae.generator
    fixed = getattr(getattr(generator, "network", None), "fixed_values", 0)
    parameters["generator"] = count(jax.eval_shape(generator.init, jax.random.key(0))) + fixed
    sizes = {
        "image": [size, size, 3],
        "features": [*tokenizer.grid, getattr(tokenizer, "width", tokenizer.channels)],
        "latent": [*tokenizer.grid, tokenizer.channels],
        "parameters": parameters,
    }
    write_json(root / "sizes.json", sizes)
