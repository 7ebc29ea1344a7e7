"""Files and folders that change their place: whole, and without the half that a kill leaves."""

import os
from pathlib import Path
from typing import Any

import pytest

from fae_jax.files import moving
from fae_jax.files.moving import Outbox, copy_folder, put_file, remove_folder, rename_folder
from fae_jax.files.writing import write_atomically

CONTENT = {"a": "1", "b/c": "2", "b/d/e": "3"}


def fill(place: Any, content: dict[str, str] = CONTENT) -> None:
    for name, text in content.items():
        write_atomically(place / name, text)


def content(place: Any) -> dict[str, str]:
    return {name: (place / name).read_text() for name in CONTENT if (place / name).exists()}


@pytest.mark.parametrize("source", ["here", "bucket"])
def test_a_folder_is_copied_once(folder: Any, bucket: Any, source: str, tmp_path: Path):
    place = (tmp_path if source == "here" else bucket) / "source"
    fill(place)
    copy_folder(place, folder / "new" / "copy")
    assert content(folder / "new" / "copy") == CONTENT
    fill(place, {"a": "changed"})
    copy_folder(place, folder / "new" / "copy")
    assert content(folder / "new" / "copy") == CONTENT
    assert [path.name for path in (folder / "new").iterdir()] == ["copy"]


def test_a_copy_that_was_interrupted_is_made_anew(folder: Any, monkeypatch: pytest.MonkeyPatch):
    fill(folder / "source")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(moving, "_copy_objects" if "://" in str(folder) else "_link", killed)
    with pytest.raises(KeyboardInterrupt):
        copy_folder(folder / "source", folder / "copy")
    monkeypatch.undo()
    copy_folder(folder / "source", folder / "copy")
    assert content(folder / "copy") == CONTENT
    assert sorted(path.name for path in folder.iterdir()) == ["copy", "source"]


def test_a_folder_is_renamed_over_another_and_removed(folder: Any):
    fill(folder / "new")
    fill(folder / "old", {"z": "0"})
    rename_folder(folder / "new", folder / "old", mark="a")
    assert content(folder / "old") == CONTENT and not (folder / "old" / "z").exists()
    assert not (folder / "new").exists()
    for _ in range(2):
        remove_folder(folder / "old")
        assert not (folder / "old").exists()


def test_the_mark_goes_first(bucket: Any, monkeypatch: pytest.MonkeyPatch):
    fill(bucket / "new")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(moving, "remove_folder", lambda place: killed() if place.name == "new" else None)
    with pytest.raises(KeyboardInterrupt):
        rename_folder(bucket / "new", bucket / "old", mark="b/c")
    assert content(bucket / "new") == {"a": "1", "b/d/e": "3"} and content(bucket / "old") == CONTENT


def test_a_local_file_is_put_where_it_belongs(folder: Any, tmp_path: Path):
    file = tmp_path / "part"
    file.write_bytes(os.urandom(6 * 2**20))  # more than one request's worth
    data = file.read_bytes()
    put_file(file, folder / "whole")
    assert (folder / "whole").read_bytes() == data and not file.exists()


def test_libraries_that_write_here_alone_have_an_outbox(folder: Any):
    outbox = Outbox(folder / "events")
    outbox.folder.mkdir(exist_ok=True)
    (outbox.folder / "a").write_text("1")
    outbox.send()
    assert (folder / "events" / "a").read_text() == "1"
    (outbox.folder / "a").write_text("12")
    (outbox.folder / "b").mkdir()
    (outbox.folder / "b" / "c").write_text("3")
    outbox.close()
    assert (folder / "events" / "a").read_text() == "12" and (folder / "events" / "b" / "c").read_text() == "3"
    assert outbox.folder.exists() != ("://" in str(folder))
