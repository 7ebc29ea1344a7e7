"""Files that change their place: whole, and without the half that a kill leaves."""

import os
from pathlib import Path
from typing import Any

import pytest

from fae_jax.files.moving import Outbox, copy_file, names_below, new_folder, put_file
from fae_jax.files.writing import write_atomically


@pytest.mark.parametrize("source", ["here", "bucket"])
def test_a_file_is_copied_over_another(folder: Any, bucket: Any, source: str, tmp_path: Path):
    place = (tmp_path if source == "here" else bucket) / "source"
    for text in ("1", "2"):
        write_atomically(place / "b" / "c", text)
        copy_file(place / "b" / "c", folder / "new" / "copy")
        assert (folder / "new" / "copy").read_text() == text
    assert (place / "b" / "c").read_text() == "2"


def test_all_files_below_a_folder(folder: Any):
    assert names_below(folder / "a") == []
    for name in ("x", "b/y", "b/c/z"):
        write_atomically(folder / "a" / name, "1")
    assert sorted(names_below(folder / "a")) == ["b/c/z", "b/y", "x"]


def test_a_local_file_is_put_where_it_belongs(folder: Any, tmp_path: Path):
    file = tmp_path / "part"
    file.write_bytes(os.urandom(6 * 2**20))  # more than one request's worth
    data = file.read_bytes()
    put_file(file, folder / "whole")
    assert (folder / "whole").read_bytes() == data and not file.exists()


def test_libraries_that_write_here_alone_have_an_outbox(folder: Any):
    outbox = Outbox(folder / "events")
    (outbox.folder / "a").write_text("1")
    outbox.send()
    assert (folder / "events" / "a").read_text() == "1"
    (outbox.folder / "a").write_text("12")
    (outbox.folder / "b").mkdir()
    (outbox.folder / "b" / "c").write_text("3")
    outbox.close()
    assert (folder / "events" / "a").read_text() == "12" and (folder / "events" / "b" / "c").read_text() == "3"
    assert outbox.folder.exists() != ("://" in str(folder))


def test_a_new_folder_is_there_when_it_is_full(folder: Any, monkeypatch: pytest.MonkeyPatch):
    target, order = folder / "made", []
    monkeypatch.setattr(
        "fae_jax.files.moving.put_file", lambda local, at: (order.append(at.name), put_file(local, at))
    )
    with pytest.raises(RuntimeError), new_folder(target) as into:
        (into / "a").write_text("0")
        raise RuntimeError
    assert names_below(folder) == []
    with new_folder(target, last="a") as into:
        for name in ("z", "a", "b/c"):
            write_atomically(into / name, name)
        assert not target.exists()
    assert sorted(names_below(folder)) == ["made/a", "made/b/c", "made/z"]
    assert (target / "b" / "c").read_text() == "b/c" and order in ([], ["c", "z", "a"])
    with pytest.raises(ValueError, match="made is not empty: name a new folder with --out"), new_folder(target):
        pass
