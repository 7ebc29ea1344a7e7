"""The working directory: whose it is, who holds it, and that nothing in it is ever half written."""

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from running import tree_hash

from fae_jax.config import default_config, flatten, override
from fae_jax.files.writing import write_atomically, write_json
from fae_jax.workdir import Workdir


@pytest.fixture
def begun(tmp_path: Path) -> Workdir:
    workdir = Workdir(tmp_path / "run")
    workdir.begin(default_config())
    return workdir


def test_a_directory_remembers_its_configuration(begun: Workdir):
    assert flatten(begun.read_config()) == flatten(default_config())
    before = tree_hash(begun.root)
    begun.begin(default_config())
    assert tree_hash(begun.root) == before


def test_another_experiment_is_refused_field_by_field_and_changes_nothing(begun: Workdir):
    before = tree_hash(begun.root)
    changed = override(default_config(), [("features.beta", "1.0"), ("seed", "5"), ("logging.every", "7")])
    with pytest.raises(ValueError) as caught:
        begun.begin(changed)
    assert "(seed: 0 → 5; features.beta: 0.0005 → 1.0)" in str(caught.value)
    assert "logging" not in str(caught.value)
    assert tree_hash(begun.root) == before


def test_many_differences_are_counted(begun: Workdir):
    names = [
        name for name, value in flatten(default_config(), every=False).items() if name.endswith(("width", "depth"))
    ]
    with pytest.raises(ValueError, match=rf"; and {len(names) - 8} more\)"):
        begun.check_config(override(default_config(), [(name, "7") for name in names]))


def test_operational_changes_are_recorded(begun: Workdir):
    begun.begin(override(default_config(), [("logging.every", "7")]))
    assert begun.read_config().logging.every == 7


def test_a_directory_without_or_with_a_broken_configuration(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"has no config.json; begin one with `fae run"):
        Workdir(tmp_path).read_config()
    (tmp_path / "config.json").write_text('{"seed": 1')
    with pytest.raises(ValueError, match=r"config.json cannot be read"):
        Workdir(tmp_path).read_config()


def test_a_file_is_no_directory(tmp_path: Path):
    (tmp_path / "file").write_text("mine")
    for place in ("file", "file/below", "file/far/below"):
        with pytest.raises(ValueError, match="/file is a file; name a directory"):
            Workdir(tmp_path / place).begin(default_config())
    assert (tmp_path / "file").read_text() == "mine"


def test_one_process_at_a_time(folder: Any):
    workdir = Workdir(folder)
    with workdir.lock():
        if "://" not in str(folder):  # a bucket's lock waits for a sign of life first: tests/files/test_locks.py
            words = f"working directory .+ is in use by process {os.getpid()} on .+; wait for it or stop it"
            with pytest.raises(ValueError, match=words), workdir.lock():
                pass
    with workdir.lock():
        pass


def test_a_working_directory_in_a_bucket(bucket: Any):
    workdir = Workdir(str(bucket))
    with pytest.raises(FileNotFoundError, match=f"{bucket} is not a working directory"):
        workdir.read_config()
    workdir.begin(default_config())
    workdir.begin(override(default_config(), [("logging.every", "7")]))
    assert workdir.read_config().logging.every == 7
    with pytest.raises(ValueError, match="belongs to another experiment"):
        workdir.check_config(override(default_config(), [("seed", "5")]))
    workdir.add_time("features", 1.5)
    workdir.add_time("features", 1.0)
    assert json.loads((bucket / "timings.json").read_text()) == {"features": 2.5}
    with pytest.raises(FileNotFoundError, match="bucket gs://no-such does not exist"):
        Workdir("gs://no-such/W").check_config(default_config())


def test_writing_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "new" / "scores.json"
    write_json(file, {"a": 1})
    assert json.loads(file.read_text()) == {"a": 1}
    assert stat.S_IMODE(file.stat().st_mode) == 0o644

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(file, b"x" * 100)
    assert json.loads(file.read_text()) == {"a": 1}
    assert [path.name for path in file.parent.iterdir()] == ["scores.json"]


@pytest.mark.parametrize("damaged", [b"", b'{"features": 1', b"[1]", b"\xff"])
def test_times_that_are_damaged_are_begun_anew(tmp_path: Path, damaged: bytes):
    (tmp_path / "timings.json").write_bytes(damaged)
    Workdir(tmp_path).add_time("features", 1.5)
    assert json.loads((tmp_path / "timings.json").read_text()) == {"features": 1.5}


def test_times_add_up_over_restarts(tmp_path: Path):
    workdir = Workdir(tmp_path)
    for phase, seconds in (("features", 1.5), ("pixels", 1.0), ("features", 2.25)):
        workdir.add_time(phase, seconds)
    assert json.loads((tmp_path / "timings.json").read_text()) == {"features": 3.75, "pixels": 1.0}


def test_damaged_timings_are_begun_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for damaged in ('{"cache": 1', "[1]"):
        (tmp_path / "timings.json").write_text(damaged)
        Workdir(tmp_path).add_time("features", 2.0)
        assert json.loads((tmp_path / "timings.json").read_text()) == {"features": 2.0}
        assert f"warning: {tmp_path}/timings.json is damaged and begun anew" in capsys.readouterr().err
