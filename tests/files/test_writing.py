"""Results reach the disk whole or not at all."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fae_jax.files.writing import (
    GrowingFile,
    append_line,
    plain,
    read_json,
    write_atomically,
    write_file,
    write_result,
)
from fae_jax.weights import write_tensors


def test_numpy_values_become_plain_ones():
    value = {1: np.float32(0.5), "a": np.arange(3), "b": (np.True_, Path("x/y")), "c": {"d": None}}
    assert plain(value) == {"1": 0.5, "a": [0, 1, 2], "b": [True, "x/y"], "c": {"d": None}}
    json.dumps(plain(value))


def test_files_have_the_rights_that_the_umask_leaves(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "text", "content")
        write_tensors(tmp_path / "weights", {"x": np.zeros(2)})
    finally:
        os.umask(before)
    assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o640}


def test_a_failed_write_keeps_what_was_there(tmp_path, monkeypatch):
    path = write_result(tmp_path / "deep" / "score.json", {"score": 1})

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_result(path, {"score": 2})
    assert json.loads(path.read_text()) == {"score": 1}
    assert os.listdir(path.parent) == ["score.json"]


def test_names_that_are_no_utf8_are_written_and_read_back(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    write_result(tmp_path / "score.json", {name: [name]})
    assert json.loads((tmp_path / "score.json").read_text(encoding="utf-8")) == {name: [name]}
    append_line(tmp_path / "bad.txt", name)
    assert (tmp_path / "bad.txt").read_text(encoding="utf-8") == "caf\\udce9.png\n"


@pytest.mark.parametrize("damaged", [b"", b'{"a": 1', b"\xff", b"[" * 100_000])
def test_json_that_is_damaged_is_named_with_what_to_do(tmp_path, damaged):
    (tmp_path / "outcome.json").write_bytes(damaged)
    with pytest.raises(ValueError, match=r"outcome.json is damaged \(.*\): remove it$"):
        read_json(tmp_path / "outcome.json", "remove it")


def test_numbers_that_json_has_no_word_for_are_refused(tmp_path):
    for value in (float("nan"), np.float32("inf")):
        with pytest.raises(ValueError, match="score.json holds a number that is not finite"):
            write_result(tmp_path / "score.json", {"score": value})
    assert not list(tmp_path.iterdir())


def test_files_are_readable_by_others_and_bytes_kept(tmp_path):
    path = write_atomically(tmp_path / "image.png", b"\x89PNG\r\n")
    assert path.read_bytes() == b"\x89PNG\r\n"
    assert path.stat().st_mode & 0o777 == 0o644


def test_what_a_library_writes_into_a_file_is_whole_too(folder: Any):
    path = write_file(folder / "deep" / "a.npz", lambda file: np.savez(file, x=np.arange(3)))
    with path.open("rb") as file:
        np.testing.assert_array_equal(np.load(file)["x"], np.arange(3))

    def fails(file: Any) -> None:
        file.write(b"half")
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        write_file(path, fails)
    with path.open("rb") as file:
        assert np.load(file).files == ["x"]


def test_a_kill_while_writing_leaves_the_old_content(folder: Any):
    path = write_atomically(folder / "a", "old")
    script = """
import os, sys, threading
from fae_jax.files.paths import as_path
from fae_jax.files.writing import write_atomically
threading.Timer(0.2, os._exit, [9]).start()
write_atomically(as_path(sys.argv[1]), b"new" * 10_000_000)
while True:
    write_atomically(as_path(sys.argv[1]), b"new" * 10_000_000)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    assert subprocess.run([sys.executable, "-c", script, str(path)], env=environment).returncode == 9
    assert len(path.read_bytes()) in (3, 30_000_000)


def test_lines_are_added_and_begun_anew(folder: Any):
    file = GrowingFile(folder / "a.jsonl", ["1"], every=1000.0)
    file.add("2")
    if "://" in str(folder):
        assert (folder / "a.jsonl").read_text() == "1\n"
        file.flush()
    assert (folder / "a.jsonl").read_text() == "1\n2\n"
    file.add("3")
    file.close()
    assert (folder / "a.jsonl").read_text() == "1\n2\n3\n"
    GrowingFile(folder / "a.jsonl", ["1"]).close()
    assert (folder / "a.jsonl").read_text() == "1\n"


def test_in_a_bucket_lines_are_written_from_time_to_time(bucket: Any):
    file = GrowingFile(bucket / "a.jsonl", every=0.0)
    file.add("1")
    assert (bucket / "a.jsonl").read_text() == "1\n"
    file._pause = 1000.0  # what it takes after a slow write
    file.add("2")
    assert (bucket / "a.jsonl").read_text() == "1\n"
    file.close()
