"""Prompts from files, and samples of them in the folders that a benchmark's evaluator reads.

    geneval   evaluation_metadata.jsonl (github.com/djghosh13/geneval)  NUMBER/metadata.jsonl, NUMBER/samples/0000.png
    dpg       a folder of NAME.txt (github.com/TencentQQGYLab/ELLA)     NAME.png: 2 × 2 samples of the prompt, or one

A layout is a class here, or an entry point in the group `fae_jax.layouts` of another package: made from the path of
its prompts; it has `prompts`, `counts`, the numbers of images that its evaluator takes of each, `usual`, the one its
authors use, and `write(folder, number, images)`, which is given all images of a prompt at once.
"""

from __future__ import annotations

import json
from collections.abc import Container, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from einops import rearrange
from jaxtyping import UInt8
from PIL import Image

from fae_jax.data.sources.coco import read_captions
from fae_jax.files.moving import remove_folder
from fae_jax.files.paths import Path, as_path
from fae_jax.files.storage import sha256
from fae_jax.files.writing import write_atomically, write_file
from fae_jax.kinds import find, names

LAYOUTS = {
    "geneval": "fae_jax.data.prompts:GenEval",
    "dpg": "fae_jax.data.prompts:DPG",
}


@runtime_checkable
class Layout(Protocol):
    """See the module. Made from a path, it raises FileNotFoundError or ValueError: the prompts cannot be read."""

    prompts: Sequence[str]
    counts: Container[int]
    usual: int

    def write(self, folder: Path, number: int, images: UInt8[np.ndarray, "k y x 3"]) -> None:
        """Writes the images of prompt `number`, counted from 0, below `folder`."""
        ...


def layout_names() -> list[str]:
    """Every layout that can be asked for."""
    return names("layouts", LAYOUTS)


def open_layout(name: str, path: str) -> Layout:
    """The layout called `name`, with the prompts at `path`.

    Raises:
      ValueError: there is none of that name, or a file does not hold what it should.
      FileNotFoundError: there is nothing at `path`.
    """
    return find("layouts", LAYOUTS, name)(path)


def read_text(path: Path, what: str) -> str:
    """The text of a UTF-8 file, with line ends as \\n.

    Args:
      what: it is, in front of the path.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is not UTF-8.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{what}{path}: there is no such file")
    try:
        return path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{what}{path} is not UTF-8 (byte {error.start}): save it as such") from None


def read_lines(path: str) -> list[str]:
    """A prompt of each line; an empty line is the empty text.

    Raises:
      FileNotFoundError, ValueError: see `read_text`; or the file is empty.
    """
    text = read_text(as_path(path), "--prompts ")
    if not text:
        raise ValueError(f"--prompts {path} is empty: write one prompt in a line")
    return text.removesuffix("\n").split("\n")


class GenEval:
    """`evaluation_metadata.jsonl`: an object in each line, whose `prompt` is drawn and whose `tag` is its task."""

    counts, usual = range(1, 10_001), 4  # files are numbered by four digits

    def __init__(self, path: str):
        self.lines = read_text(as_path(path), "--prompts ").rstrip().split("\n")
        self.prompts = [
            _prompt(f"--prompts {path}, line {number}", line) for number, line in enumerate(self.lines, 1)
        ]

    def write(self, folder: Path, number: int, images: UInt8[np.ndarray, "k y x 3"]) -> None:
        own = folder / f"{number:05d}"
        write_atomically(own / "metadata.jsonl", self.lines[number] + "\n")
        for place, image in enumerate(images):
            write_png(own / "samples" / f"{place:04d}.png", image)


def _prompt(where: str, line: str) -> str:
    """The prompt of a line of GenEval's file."""
    try:
        about: Any = json.loads(line)
    except (ValueError, RecursionError):
        about = None
    if not isinstance(about, dict) or not all(isinstance(about.get(name), str) for name in ("prompt", "tag")):
        raise ValueError(
            f"{where} is no JSON object with a prompt and a tag: {line[:60]!r}; name GenEval's "
            "evaluation_metadata.jsonl"
        )
    return about["prompt"]


class DPG:
    """A folder of `NAME.txt`, a prompt in each, by name."""

    counts, usual = (1, 4), 4

    def __init__(self, path: str):
        folder = as_path(path)
        if not folder.is_dir():
            raise FileNotFoundError(f"--prompts {path} is not a folder: name DPG-Bench's prompts, NAME.txt each")
        files = sorted((file for file in folder.iterdir() if file.suffix == ".txt"), key=lambda file: file.name)
        if not files:
            raise ValueError(f"--prompts {path} holds no .txt file: name DPG-Bench's folder of prompts")
        self.names = [file.stem for file in files]
        self.prompts = [read_text(file, "--prompts ").strip() for file in files]
        empty = [file.name for file, prompt in zip(files, self.prompts, strict=True) if not prompt]
        if empty:
            raise ValueError(f"--prompts {path}: {empty[0]} is empty: write its prompt into it, or remove it")

    def write(self, folder: Path, number: int, images: UInt8[np.ndarray, "k y x 3"]) -> None:
        side = 2 if len(images) == 4 else 1
        grid = rearrange(images, "(r c) y x three -> (r y) (c x) three", r=side)
        write_png(folder / f"{self.names[number]}.png", grid)


def write_png(path: Path, image: UInt8[np.ndarray, "y x 3"]) -> None:
    write_file(path, lambda file: Image.fromarray(image).save(file, "PNG"))


def draw_coco(path: str, count: int, seed: int) -> tuple[list[str], dict[str, Any]]:
    """`count` captions of COCO's `captions_val2014.json`, drawn without replacement, and how they were.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it holds no captions, or fewer.
    """
    listed, _ = read_captions(path)
    captions = [caption for own in listed.values() for caption in own]
    if count > len(captions):
        raise ValueError(f"{path} holds {len(captions):,} captions, and {count:,} are asked for: draw fewer")
    places = np.random.default_rng(seed).choice(len(captions), count, replace=False)
    about = {"of": len(captions), "sha256": sha256(path), "drawn": "without replacement", "seed": seed}
    return [captions[place] for place in places], about


class ByPrompt:
    """Hands a stream of images to a layout, `each` of a prompt after the other, below `folder`."""

    def __init__(self, layout: Layout, folder: Path, each: int):
        self._layout, self._folder, self._each = layout, folder, each
        self._held: list[np.ndarray] = []
        self._written = 0

    def clear(self) -> None:
        """Removes what an earlier drawing left."""
        remove_folder(self._folder)

    def add(self, images: UInt8[np.ndarray, "k y x 3"]) -> None:
        """Takes in the next images; those of a prompt are written when its last one has come."""
        for image in images:
            self._held.append(image)
            if len(self._held) == self._each:
                self._layout.write(self._folder, self._written, np.stack(self._held))
                self._held, self._written = [], self._written + 1
