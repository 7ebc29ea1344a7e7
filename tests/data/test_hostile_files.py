"""Damaged images, tars, folders and tables, and files made to do harm: each works, is counted, or is one line."""

import io
import os
import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import flipped
from PIL import Image

from fae_jax.data.decode import decode_image
from fae_jax.data.prepare.checking import Filters, check_source
from fae_jax.data.sources.kinds import open_source
from fae_jax.weights import open_tensors, write_tensors
from fae_jax.weights.pickles import read_pickle

DAMAGES = 30  # of each kind of store
STRENGTHS = (1, 8, 64)  # bits
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "ICO", "EPS", "PDF", "TGA", "JPEG2000", "PCX", "SGI")


def damaged(whole: bytes, rng: np.random.Generator) -> bytes:
    """Cut, doubled, filled with zeros in the middle, spliced with itself, or with some bits the other way round."""
    start, stop = sorted(rng.integers(0, len(whole) + 1, 2).tolist())
    how = rng.integers(5)
    if how == 0:
        return whole[:stop]
    if how == 1:
        return whole[:start] + bytes(stop - start) + whole[stop:]
    if how == 2:
        return whole[:stop] + whole[start:]
    if how == 3:
        return whole[start:stop] + whole[:start]
    for _ in range(int(rng.choice(STRENGTHS))):
        whole = flipped(whole, rng)
    return whole


def outcome(act: Callable[[], Any]) -> str:
    """ "works", or "refused" with a message of one line; any other error is the test's."""
    try:
        act()
    except (ValueError, OSError) as error:
        text = str(error)
        assert text.strip() and "\n" not in text and len(text) < 2000, (type(error), text)
        return "refused"
    return "works"


def looked_at(kind: str, path: Path, folder: Path) -> None:
    """What `fae prepare` does to a source: open it and check every image; bad ones are counted."""
    source = open_source(kind, path=str(path), split="train", holdout=0.0, seed=0)
    checked = check_source(source, Filters(), folder, threads=1)  # type: ignore[arg-type]
    assert len(checked["reason"]) == len(source)
    for position in checked["used"][:3]:
        assert source[int(position)]["image"].ndim == 3


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "tar", "array_record", "parquet", "tfds"])
def test_damaged_stores(kind: str, images: list, tmp_path: Path, repack: Any) -> None:
    path = Path(repack(kind, images[::3], tmp_path / "data"))
    files, rng, outcomes = [file for file in sorted(path.rglob("*")) if file.is_file()], np.random.default_rng(1), []
    for number in range(DAMAGES):
        file = files[int(rng.integers(len(files)))]
        whole = file.read_bytes()
        file.write_bytes(damaged(whole, rng))
        outcomes.append(outcome(lambda number=number: looked_at(kind, path, tmp_path / f"checked {number}")))
        file.write_bytes(whole)
    assert outcome(lambda: looked_at(kind, path, tmp_path / "checked")) == "works"
    assert len(outcomes) == DAMAGES


def picture(kind: str, rng: np.random.Generator) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (24, 20, 3), np.uint8)).save(buffer, kind)
    return buffer.getvalue()


class Order:
    """A pickle that would write a file where it is opened."""

    def __init__(self, target: Path):
        self._target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._target),)


def hostile(number: int, folder: Path, rng: np.random.Generator, write_tar: Callable[..., None]) -> str:
    """Writes and opens one file that is damaged, mislabelled or made to do harm."""
    kind, file, trap = number % 4, folder / "a", folder.parent / "harm"
    if kind == 0:  # an image of any format under any name
        data = picture(FORMATS[number // 4 % len(FORMATS)], rng)
        data = damaged(data, rng) if rng.random() < 0.8 else data
        return outcome(lambda: decode_image(data, "a.jpg", 2**20))
    if kind == 1:  # a pickle, alone or inside the archive that torch writes
        content = pickle.dumps({"x": [Order(trap), b"y" * 50]}, protocol=int(rng.integers(0, 6)))
        content = damaged(content, rng) if rng.random() < 0.7 else content
        if rng.random() < 0.5:
            with zipfile.ZipFile(file, "w") as archive:
                archive.writestr("a/data.pkl", content)
                archive.writestr("a/data/0", bytes(64))
        else:
            file.write_bytes(content)
        return outcome(lambda: read_pickle(file))
    if kind == 2:  # safetensors whose header says anything
        write_tensors(file, {"x": np.arange(40, dtype=np.float32), "y": np.ones((3, 4), np.int8)})
        file.write_bytes(damaged(file.read_bytes(), rng))

        def read() -> None:
            tensors = open_tensors(file)
            for name in tensors:
                assert tensors.read(name).nbytes <= file.stat().st_size

        return outcome(read)
    members = {"../../harm/a.jpg": b"x", f"{trap}/b.jpg": b"x", "a.jpg": picture("PNG", rng), "a.cls": b"0"}
    write_tar(folder / "a.tar", members)
    content = (folder / "a.tar").read_bytes()
    (folder / "a.tar").write_bytes(damaged(content, rng) if rng.random() < 0.8 else content)
    return outcome(lambda: looked_at("tar", folder / "a.tar", folder / f"checked {number}"))


WATCHED: list[tuple[Path, list[str]]] = []  # the folder that may be written to, and what else was done
STARTS = ("subprocess.Popen", "os.system", "os.posix_spawn", "os.exec", "os.fork", "pickle.find_class")
WRITES = ("os.mkdir", "os.rename", "os.remove", "os.link", "os.symlink")


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook; Python has no way to take one back, so it does nothing unless something is watched."""
    if not WATCHED:
        return
    folder, done = WATCHED[-1]
    writes = event in WRITES or (
        event == "open" and isinstance(arguments[2], int) and arguments[2] & 3 != os.O_RDONLY
    )
    outside = writes and not str(arguments[0]).startswith(str(folder))
    if event in STARTS or outside:
        done.append(f"{event} {arguments}")


@pytest.mark.slow
def test_a_thousand_hostile_files_do_nothing(tmp_path: Path, write_tar: Any) -> None:
    folder, rng, done, outcomes = tmp_path / "inside", np.random.default_rng(2), [], []
    folder.mkdir()
    hostile(3, folder, rng, write_tar)  # what is imported is imported
    sys.addaudithook(watch)
    WATCHED.append((folder, done))
    try:
        outcomes += [hostile(number, folder, rng, write_tar) for number in range(1000)]
        for file in (folder.parent / "seen", folder / "seen"):
            file.write_bytes(b"")
    finally:
        WATCHED.clear()
    assert len(done) == 1 and str(folder.parent / "seen") in done[0]  # the hook sees, and saw nothing else
    assert not (tmp_path / "harm").exists()
    assert outcomes.count("works") > 100 and outcomes.count("refused") > 300
