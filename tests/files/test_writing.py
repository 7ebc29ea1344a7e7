"""Results reach the disk whole or not at all."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from fae_jax.files.writing import plain, write_atomically, write_result


def test_numpy_values_become_plain_ones():
    value = {1: np.float32(0.5), "a": np.arange(3), "b": (np.True_, Path("x/y")), "c": {"d": None}}
    assert plain(value) == {"1": 0.5, "a": [0, 1, 2], "b": [True, "x/y"], "c": {"d": None}}
    json.dumps(plain(value))


def test_a_failed_write_keeps_what_was_there(tmp_path, monkeypatch):
    path = write_result(tmp_path / "deep" / "score.json", {"score": 1})

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_result(path, {"score": 2})
    assert json.loads(path.read_text()) == {"score": 1}
    assert os.listdir(path.parent) == ["score.json"]


def test_numbers_that_json_has_no_word_for_are_refused(tmp_path):
    for value in (float("nan"), np.float32("inf")):
        with pytest.raises(ValueError, match="score.json holds a number that is not finite"):
            write_result(tmp_path / "score.json", {"score": value})
    assert not list(tmp_path.iterdir())


def test_files_are_readable_by_others_and_bytes_kept(tmp_path):
    path = write_atomically(tmp_path / "image.png", b"\x89PNG\r\n")
    assert path.read_bytes() == b"\x89PNG\r\n"
    assert path.stat().st_mode & 0o777 == 0o644
