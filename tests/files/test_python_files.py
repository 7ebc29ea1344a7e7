"""Python files as configuration: what is read is the file as it stands, and nothing is left beside it."""

import sys
from pathlib import Path

import pytest

from fae_jax.files.python_files import run_file


def test_nothing_is_written_beside_a_file_and_a_change_within_a_second_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    file = tmp_path / "own.py"
    for value in (1, 2):  # of the same size, perhaps of the same second
        file.write_text(f"value = {value}\n")
        assert run_file(file, "configuration", lambda module: module.value) == value
    assert [path.name for path in tmp_path.iterdir()] == ["own.py"]
