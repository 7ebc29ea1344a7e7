"""What is wrong with data, as users meet it through the commands: one clear line, or counted and left out."""

import contextlib
import dataclasses
import io
import json
import os
import shutil
import signal
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from running import TINY, fae, start

from fae_jax.cli.program import main
from fae_jax.data.stores.latents import read_header


def jpeg(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(shade).integers(0, 256, (40, 40, 3), np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            about = tarfile.TarInfo(name)
            about.size = len(data)
            archive.addfile(about, io.BytesIO(data))


def labelled(count: int = 8) -> dict[str, bytes]:
    members: dict[str, bytes] = {}
    for number in range(count):
        members |= {f"{number}.jpg": jpeg(number), f"{number}.cls": str(number % 2).encode()}
    return members


@pytest.fixture
def told(capfd: pytest.CaptureFixture[str]):
    """Runs a command line; (exit code, its lines that are not progress)."""

    def run(*words: object) -> tuple[int, list[str]]:
        capfd.readouterr()
        code = main([str(word) for word in words])
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return code, [*out.splitlines(), *(line for line in err.splitlines() if line.startswith("fae: "))]

    return run


def left_out(out: Path) -> dict[str, int]:
    return {name: entry["count"] for name, entry in json.loads((out / "summary.json").read_text())["reasons"].items()}


def test_images_that_are_none_are_counted(told, tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        (tmp_path / "in" / label).mkdir(parents=True)
        for number in range(4):
            (tmp_path / "in" / label / f"{number}.jpg").write_bytes(jpeg(number))
    (tmp_path / "in" / "cat" / "1.jpg").write_bytes(jpeg(1)[:-400])
    (tmp_path / "in" / "dog" / "2.jpg").write_bytes(b"")
    (tmp_path / "in" / "dog" / "3.jpg").write_text("<!DOCTYPE html><html>gone</html>")
    code, lines = told("prepare", "folder", tmp_path / "in", "--out", tmp_path / "out")
    assert code == 0 and "5 of 8 images are used" in lines[0] and "3 left out: it cannot be decoded" in lines[1]
    page = (tmp_path / "out" / "summary.html").read_text()
    assert all(words in page for words in ("truncated", "the file is empty", "a web page"))


def test_an_empty_class_folder(told, tmp_path: Path) -> None:
    for label in ("cat", "dog", "eel"):
        (tmp_path / "in" / label).mkdir(parents=True)
    for number in range(4):
        (tmp_path / "in" / ("cat", "dog")[number % 2] / f"{number}.jpg").write_bytes(jpeg(number))
    (tmp_path / "in" / "eel" / "notes.txt").write_text("none yet")
    code, lines = told("prepare", "folder", tmp_path / "in", "--out", tmp_path / "out")
    assert code == 2 and len(lines) == 1, lines
    said = f"1 of 3 class folders: {tmp_path / 'in' / 'eel'} has no images"
    assert said in lines[0] and "fill or remove" in lines[0]
    assert not (tmp_path / "out").exists()


def test_tars_that_are_cut_or_reach_outside(told, tmp_path: Path) -> None:
    members = labelled() | {"../out.jpg": jpeg(9), "/etc/out.jpg": jpeg(9)}
    members |= {"word.jpg": jpeg(10), "word.cls": b"cat", "far.jpg": jpeg(11), "far.cls": b"9999999"}
    write_tar(tmp_path / "a.tar", members)
    write_tar(tmp_path / "b.tar", labelled(6))
    whole = (tmp_path / "b.tar").read_bytes()
    (tmp_path / "b.tar").write_bytes(whole[: len(whole) // 2])
    words = ("prepare", "imagenet", tmp_path, "--classes", 2, "--out", tmp_path / "out")
    code, lines = told(*words)
    assert code == 0, lines
    found = left_out(tmp_path / "out")
    assert found["names a place outside the archive"] == 2 and found["its class is out of range"] == 1
    assert found["its class is not a number"] == 1 and found["the tar is cut or damaged"] >= 1
    assert not (tmp_path.parent / "out.jpg").exists()


def test_captions_that_are_missing_or_not_utf8(told, tmp_path: Path) -> None:
    members = {
        "0.jpg": jpeg(0),
        "0.txt": b"a good caption",
        "1.jpg": jpeg(1),
        "2.jpg": jpeg(2),
        "2.txt": "größe".encode("latin-1"),
        "3.jpg": jpeg(3),
        "3.txt": b" ",
    }
    write_tar(tmp_path / "a.tar", members)
    code, lines = told("prepare", "cc12m", tmp_path / "a.tar", "--out", tmp_path / "out", "--min_side", 8)
    assert code == 0 and "1 of 4 images are used" in lines[0]
    assert {"its caption is not UTF-8", "its caption is empty"} < set(left_out(tmp_path / "out"))


def test_an_index_older_than_its_tar_and_outputs_in_a_bucket(told, tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", labelled())
    words = ("prepare", "imagenet", tmp_path / "a.tar", "--classes", 2)
    assert told(*words, "--out", tmp_path / "out")[0] == 0
    write_tar(tmp_path / "a.tar", labelled(6))
    data = ("source=tar", f"path={tmp_path / 'out'}", "classes=2", "holdout=0.0")
    run = ("run", "--config", TINY, "--workdir", tmp_path / "w", *(f"--config.data.{field}" for field in data))
    code, lines = told(*run)
    assert code == 2 and len(lines) == 1 and "is older than" in lines[0] and "`fae prepare`" in lines[0]
    assert not (tmp_path / "w").exists()
    code, lines = told(*words, "--out", "gs://bucket/out")
    assert code == 2 and "--out gs://bucket/out is in a bucket: name a folder on a disk" in lines[0]


# The latent cache


@pytest.fixture
def trained(finished: Path, tmp_path: Path) -> Path:
    """A directory whose cache is finished, and whose generator is not begun."""
    workdir = tmp_path / "trained"
    shutil.copytree(finished, workdir, ignore=shutil.ignore_patterns("generator", "samples", "evaluation"))
    return workdir


def of_cache(workdir: Path) -> Path:
    (folder,) = (workdir / "latents").glob("*/")
    return folder


def test_a_cache_of_another_encoder_and_compressor(told, trained: Path) -> None:
    header = read_header(of_cache(trained))
    identity = dataclasses.replace(header.identity, encoder_weights="0" * 64, compressor="1" * 64)
    other = dataclasses.replace(header, identity=identity)
    (of_cache(trained) / "header.json").write_text(json.dumps(other.to_json()))
    code, lines = told("train", "generator", "--workdir", trained)
    assert code == 2 and len(lines) == 1, lines
    assert f"{of_cache(trained)} is {identity.hash}, and {trained} was made with {of_cache(trained).name}" in lines[0]
    assert not (trained / "generator").exists()


def test_a_cache_half_written_or_damaged(told, trained: Path) -> None:
    shard = sorted(of_cache(trained).glob("*.array_record"))[1]
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-100])
    code, lines = told("train", "generator", "--workdir", trained)
    assert code == 2 and f"shard {shard} has {len(whole) - 100} bytes" in lines[0]
    code, lines = told("cache", "--verify", "--workdir", trained)
    assert code == 2 and f"shard {shard} has {len(whole) - 100} bytes" in lines[0]
    shard.write_bytes(whole)
    code, lines = told("cache", "--verify", "--workdir", trained)
    assert code == 0 and "are as written" in lines[0]
    (of_cache(trained) / "header.json").unlink()
    for verify in ((), ("--verify",)):
        words = ("cache", *verify) if verify else ("train", "generator")
        code, lines = told(*words, "--workdir", trained)
        assert code == 2 and ("stage cache" in lines[0] or "is not finished" in lines[0]), lines
    code, lines = told("cache", "--workdir", trained)
    assert code == 0 and shard.read_bytes() == whole
    header = of_cache(trained) / "header.json"
    written = header.read_text()
    header.write_text(written.replace('"images"', '"imagos"', 1))
    code, lines = told("train", "generator", "--workdir", trained)
    assert code == 2 and "run `fae cache" in lines[0], lines
    code, lines = told("cache", "--workdir", trained)
    assert code == 0 and header.read_text() == written  # the remedy is one


def test_its_size_is_said_first_and_a_disk_too_small_is_refused(trained: Path, tmp_path: Path) -> None:
    _, err = fae("cache", "--workdir", trained, f"--config.cache.path={tmp_path / 'other'}")
    (cached,) = (tmp_path / "other").iterdir()
    assert cached.name == of_cache(trained).name
    said = err.splitlines()[0]
    assert said.startswith("cache: ") and "records of 16 × 4" in said and "MB to write to" in said and "free" in said
    assert " s left" in err
    _, err = fae("cache", "--workdir", trained, "--config.cache.path=memory://bucket/latents", code=2)
    assert len(err.splitlines()) == 1 and "bucket" in err


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 320 kB: more than the records of the tiny cache take, less than its files do."""
    folder = tmp_path / "disk"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=320k", "tmpfs", folder]
    if os.geteuid() or not shutil.which("mount") or subprocess.run(words, capture_output=True).returncode:
        pytest.skip("no file system may be mounted here")
    with contextlib.ExitStack() as stack:
        stack.callback(subprocess.run, ["umount", "-l", folder], check=True)
        yield folder


def test_a_disk_that_fills_up_while_caching(trained: Path, small_disk: Path) -> None:
    words = ("cache", "--workdir", trained, f"--config.cache.path={small_disk}")
    _, err = fae(*words, code=1)
    (line,) = [line for line in err.splitlines() if line.startswith("fae: ")]
    assert "Traceback" not in err and "what was finished is kept" in line, line
    (folder,) = small_disk.iterdir()
    kept = {path.name: path.read_bytes() for path in folder.glob("shard-*.array_record")}
    assert kept and not list(folder.glob("*.part"))
    subprocess.run(["mount", "-o", "remount,size=4m", small_disk], check=True)
    fae(*words)
    for name, content in kept.items():
        assert (folder / name).read_bytes() == content == (of_cache(trained) / name).read_bytes()


def test_two_runs_writing_one_cache(told, trained: Path, tmp_path: Path) -> None:
    wanted = {path.name: path.read_bytes() for path in of_cache(trained).glob("shard-*")}
    shutil.rmtree(of_cache(trained))
    other = tmp_path / "other"
    shutil.copytree(trained, other)
    words = (f"--config.cache.path={tmp_path / 'shared'}", "--config.cache.shard_size=64")
    first = start("cache", "--workdir", trained, *words)
    lock = None
    while first.poll() is None and lock is None:
        lock = next((tmp_path / "shared").glob("*/writer-0.lock"), None)
        lock = lock if lock and lock.read_text() else None
    os.kill(first.pid, signal.SIGSTOP)  # in the middle of its work
    try:
        assert lock is not None and not (lock.parent / "header.json").exists()
        code, lines = told("cache", "--workdir", other, *words)
    finally:
        os.kill(first.pid, signal.SIGCONT)
    assert code == 1 and len(lines) == 1, lines
    assert f"is in use by process {first.pid} on " in lines[0] and "wait for it or stop it" in lines[0]
    _, err = first.communicate(timeout=200)
    assert first.returncode == 0, err
    assert {path.name: path.read_bytes() for path in lock.parent.glob("shard-*")} == wanted
    assert told("cache", "--workdir", other, *words)[0] == 0
