"""Tar shards as users have them: img2dataset's captions, and everything that can be wrong with a tar."""

import io
import json
import logging
import os
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from damage import flipped
from PIL import Image

from fae_jax.data.decode import BadImage
from fae_jax.data.sources.kinds import open_source
from fae_jax.data.sources.listing import Source
from fae_jax.data.sources.stored import counted
from fae_jax.data.sources.tar_index import CUT, DOTS, NO_TAR, join_indices, scan_tar
from fae_jax.data.sources.tars import TarSource, open_index
from fae_jax.files.storage import find_files


def jpeg(shade: int = 100) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (30, 20), (shade, 50, 200)).save(buffer, "JPEG")
    return buffer.getvalue()


def opened(path: Path, **options: Any) -> TarSource:
    return TarSource(str(path), **{"split": "train", "holdout": 0.0, "seed": 0, **options})


def labelled(count: int = 6) -> dict[str, bytes]:
    members = {}
    for number in range(count):
        members |= {f"{number:03d}.jpg": jpeg(number * 20), f"{number:03d}.cls": str(number % 3).encode()}
    return members


def captioned(count: int = 4) -> dict[str, bytes]:
    members = {}
    for number in range(count):
        about = {"caption": f"image {number}", "width": 30, "height": 20, "status": "success"}
        members[f"{number:09d}.jpg"] = jpeg(number * 20)
        members[f"{number:09d}.txt"] = f"image  {number} \n".encode()
        members[f"{number:09d}.json"] = json.dumps(about).encode()
    return members


def test_members_are_found_where_tarfile_finds_them(tmp_path: Path, write_tar: Any) -> None:
    write_tar(tmp_path / "a.tar", labelled())
    source = opened(tmp_path / "a.tar")
    with tarfile.open(tmp_path / "a.tar") as archive:
        for position in range(6):
            assert source.stored(position).data == archive.extractfile(f"{position:03d}.jpg").read()
            assert source.stored(position).label == position % 3
    assert source.classes == ("0", "1", "2") and not source.captioned


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_tar_dialect_and_long_names(tmp_path: Path, form: int) -> None:
    folder = "f" * 60 + "/" + "größe" * 12
    names = {"k.x.jpg": jpeg(), "k.cls": b"1\n", "j.JPG": jpeg(), "j.cls": b"0"}
    with tarfile.open(tmp_path / "a.tar", "w", format=form) as archive:
        for name, content in names.items():
            about = tarfile.TarInfo(f"{folder}/{name}")
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))
    index = scan_tar(find_files(str(tmp_path / "a.tar"), (".tar",))[0])
    assert index.columns["label"].tolist() == [0] and counted(index.skipped) == {DOTS: 1}


def test_keys_with_dots_are_counted_one_by_one(tmp_path: Path, write_tar: Any) -> None:
    dotted = {f"photo.v2.{number}.{end}": jpeg() for number in range(3) for end in ("jpg", "cls")}
    write_tar(tmp_path / "a.tar", labelled(2) | dotted)
    index, _ = open_index(str(tmp_path))
    assert len(index) == 2 and counted(index.skipped) == {DOTS: 3}
    assert index.skipped[1].name == "a.tar/photo.v2.1.jpg" and index.skipped[1].detail == "its key is 'photo'"


def test_what_macos_puts_beside_each_file_is_passed_over(tmp_path: Path, write_tar: Any) -> None:
    members = {}
    for name, content in labelled(3).items():
        folder, _, last = f"set/{name}".rpartition("/")
        members |= {f"{folder}/._{last}": b"Mac OS X", f"{folder}/{last}": content}
    write_tar(tmp_path / "a.tar", members)
    index, classes = open_index(str(tmp_path))
    assert len(index) == 3 and len(classes) == 3 and not index.skipped


def test_members_of_a_sample_are_joined_wherever_they_lie_in_a_shard(tmp_path: Path, write_tar: Any) -> None:
    members = labelled() | {"lone.cls": b"1"}
    by_kind = dict(sorted(members.items(), key=lambda item: item[0].rpartition(".")[2], reverse=True))
    mixed = dict(sorted(members.items(), key=lambda item: item[1][:-50:-1]))
    for number, order in enumerate((members, by_kind, mixed)):
        write_tar(tmp_path / f"{number}.tar", order)
        source = opened(tmp_path / f"{number}.tar")
        stored = sorted((source.stored(position).label, source.stored(position).data) for position in range(6))
        assert stored == sorted((number % 3, jpeg(number * 20)) for number in range(6))
        assert counted(source.skipped) == {"has no image": 1}


def test_a_key_that_comes_twice_is_two_samples(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, content in [*labelled(2).items(), ("000.jpg", jpeg(90)), ("000.cls", b"1")]:
            about = tarfile.TarInfo(name)
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))
    source = opened(tmp_path / "a.tar")
    assert [source.stored(position).label for position in range(3)] == [0, 1, 1]
    assert source.stored(2).data == jpeg(90)


def test_earlier_scans_are_kept_and_those_of_an_earlier_version_made_anew(tmp_path: Path, write_tar: Any) -> None:
    write_tar(tmp_path / "a.tar", labelled())
    open_index(str(tmp_path / "a.tar"), tmp_path / "scanned")
    (header,) = tmp_path.glob("scanned/*/index.json")
    about = json.loads(header.read_text())
    about.pop("sha256")
    for version, count in ((about["version"], 0), (1, 6)):
        header.write_text(json.dumps(about | {"version": version}))
        np.save(header.parent / "size.npy", np.zeros(6, np.int32))
        index, _ = open_index(str(tmp_path / "a.tar"), tmp_path / "scanned")
        assert (index.columns["size"] > 0).sum() == count


def test_captions_of_img2dataset(tmp_path: Path, write_tar: Any) -> None:
    write_tar(tmp_path / "00000.tar", captioned())
    listed = json.dumps({"captions": ["first", "größe\n two", " "]}).encode()
    write_tar(tmp_path / "00001.tar", {"x.jpg": jpeg(), "x.txt": b"first", "x.json": listed})
    source = open_source("tar", path=str(tmp_path), split="train", holdout=0.0, seed=0)
    assert isinstance(source, Source) and source.captioned and source.classes == () and len(source) == 5
    assert source[1]["captions"] == ("image 1",) and source[1]["label"] == -1
    assert source[4]["captions"] == ("first", "größe two")


def test_patterns_and_class_names(tmp_path: Path, write_tar: Any) -> None:
    for number in range(3):
        write_tar(tmp_path / f"s-{number:04d}.tar", labelled(2))
    (tmp_path / "classes.json").write_text(json.dumps([{"class": 1, "name": "dog"}, {"class": 0, "name": "cat"}]))
    assert len(opened(tmp_path / "s-{0001..0002}.tar")) == 4
    assert len(opened(tmp_path / "s-*.tar")) == 6
    assert opened(tmp_path).classes == opened(tmp_path / "s-0000.tar").classes == ("cat", "dog")
    (tmp_path / "classes.json").write_text('[{"class": 5, "name": "eel"}]')
    with pytest.raises(ValueError, match=r"holds no image that can be used \(its class is out of range\)"):
        opened(tmp_path)
    (tmp_path / "classes.json").write_text('{"a": 1}')
    with pytest.raises(ValueError, match="classes.json is neither a list"):
        opened(tmp_path)


def test_classes_counted_from_1_are_refused_and_the_remedy_works(tmp_path: Path, write_tar: Any) -> None:
    members = {
        name: str(int(data) + 1).encode() if name.endswith("cls") else data for name, data in labelled().items()
    }
    write_tar(tmp_path / "a.tar", members)
    with pytest.raises(
        ValueError, match=r"counts its 3 classes from 1.*classes\.json beside the shards, (?P<json>.*)"
    ):
        opened(tmp_path)
    names = [{"class": number, "name": name} for number, name in ((1, "cat"), (2, "dog"), (3, "eel"))]
    (tmp_path / "classes.json").write_text(json.dumps(names))
    source = opened(tmp_path)
    assert source.classes == ("cat", "dog", "eel")
    assert [source.stored(position).label for position in range(6)] == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize(
    ("names", "path", "splits"),
    [
        (("train2017-0.tar", "val2017-0.tar"), "", "train and of validation"),
        (("Testing_0.tar", "Training_0.tar", "more.tar"), "", "test and of train"),
        (("a.dev.tar", "a.train.tar"), "", "train and of validation"),
        (("a.dev.tar", "a.train.tar"), "*train*.tar", ""),
        (("strain-0.tar", "vals-1.tar", "contest.tar"), "", ""),
        (("train-0.tar", "train-1.tar"), "", ""),
    ],
)
def test_the_split_that_names_tell_of(tmp_path: Path, write_tar: Any, names: Any, path: str, splits: str) -> None:
    for name in names:
        write_tar(tmp_path / name, labelled(2))
    if not splits:
        assert len(opened(tmp_path / path)) == 2 * len(list(tmp_path.glob(path or "*")))
        return
    with pytest.raises(
        ValueError, match=f"holds files of {splits}; name those to train on, such as {tmp_path}/train"
    ):
        opened(tmp_path / path)


def test_what_cannot_be_used_is_left_out_counted_and_named(
    tmp_path: Path, write_tar: Any, caplog: pytest.LogCaptureFixture
) -> None:
    members = labelled(4) | {
        "../evil.jpg": jpeg(),
        "/etc/evil.jpg": jpeg(),
        "a/../../evil.jpg": jpeg(),
        "alone.cls": b"1",
        "word.jpg": jpeg(),
        "word.cls": b"cat",
        "minus.jpg": jpeg(),
        "minus.cls": b"-1",
        "nine.jpg": jpeg(),
        "nine.cls": b"9",
        "none.jpg": jpeg(),
    }
    write_tar(tmp_path / "a.tar", members)
    with tarfile.open(tmp_path / "a.tar", "a") as archive:
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    (tmp_path / "classes.json").write_text('["a", "b", "c"]')
    with caplog.at_level(logging.WARNING):
        index, classes = open_index(str(tmp_path))
    assert len(index) == 4 and classes == ("a", "b", "c")
    assert counted(index.skipped) == {
        "names a place outside the archive": 3,
        "its class is out of range": 2,
        "has no image": 1,
        "its class is not a number": 1,
        "is a link or device, not a file": 1,
        "has no class": 1,
    }
    assert "3 left out: names a place outside the archive" in caplog.text
    assert any(skip.name == "a.tar/../evil.jpg" for skip in index.skipped)


def test_captions_that_are_missing_or_not_utf8(tmp_path: Path, write_tar: Any) -> None:
    members = captioned(2) | {
        "latin.jpg": jpeg(),
        "latin.txt": "größe".encode("latin-1"),
        "silent.jpg": jpeg(),
        "blank.jpg": jpeg(),
        "blank.txt": b" \n",
        "broken.jpg": jpeg(),
        "broken.json": b"{",
    }
    write_tar(tmp_path / "a.tar", members)
    index, _ = open_index(str(tmp_path))
    reasons = ["its caption is not UTF-8", "its caption is empty", "its JSON cannot be read", "has no caption"]
    assert len(index) == 2 and counted(index.skipped) == dict.fromkeys(reasons, 1)


@pytest.mark.parametrize("cut", ["inside an image", "inside a header", "between members", "before the end mark"])
def test_a_tar_cut_anywhere_keeps_what_is_whole(tmp_path: Path, write_tar: Any, cut: str) -> None:
    write_tar(tmp_path / "a.tar", labelled())
    with tarfile.open(tmp_path / "a.tar") as archive:
        offsets = {member.name: member.offset_data for member in archive}
    end = {
        "inside an image": offsets["004.jpg"] + 100,
        "inside a header": offsets["004.jpg"] - 300,
        "between members": offsets["004.jpg"] - 512,
        "before the end mark": offsets["005.cls"] + 512,
    }[cut]
    (tmp_path / "a.tar").write_bytes((tmp_path / "a.tar").read_bytes()[:end])
    index, _ = open_index(str(tmp_path))
    whole = 6 if cut == "before the end mark" else 4
    assert len(index) == whole and counted(index.skipped)["the tar is cut or damaged"] >= 1
    source = opened(tmp_path)
    assert [int(source[i]["label"]) for i in range(whole)] == [i % 3 for i in range(whole)]


def test_what_is_no_tar_at_all_is_named(tmp_path: Path) -> None:
    for content in (b"", b"<!DOCTYPE html><html>" * 100, b"\x1f\x8b" + bytes(range(256)) * 8):
        (tmp_path / "a.tar").write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.tar (is no uncompressed tar|holds no image)"):
            opened(tmp_path / "a.tar")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        opened(tmp_path / "none.tar")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no file that ends in .tar"):
        opened(tmp_path / "empty")


def member(name: str, data: bytes = b"", size: int | None = None, kind: bytes = b"0") -> bytes:
    """Header and content as no library writes them: any size, any kind."""
    about = tarfile.TarInfo(name)
    about.type, about.size = kind, len(data)
    header = bytearray(about.tobuf(tarfile.GNU_FORMAT))
    if size is not None:
        header[124:136] = (b"\xff" if size < 0 else b"\x80") + (size % 256**11).to_bytes(11, "big")
        header[148:156] = b"%06o\0 " % sum((*header[:148], *b" " * 8, *header[156:512]))
    return bytes(header) + data + bytes(-len(data) % 512)


GOOD = member("a.jpg", jpeg()) + member("a.cls", b"0")
HOLES = b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n"
EXTENSION = b"20 comment=%08d\n"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        *((member("b.jpg", size=size), CUT) for size in (-100, -512, -1024, -(2**60))),
        (member("b", b"17 size=-1000000\n", kind=b"x") + member("b.jpg"), CUT),
        (b"".join(member("b", EXTENSION % number, kind=b"x") for number in range(3000)), CUT),
        (b"".join(member("././@LongLink", b"b\0", kind=b"L") for _ in range(900)), CUT),
        (member("././@LongLink", size=2**40, kind=b"L"), CUT),
        (member("b", HOLES, kind=b"x") + member("b.jpg", b"9" * 12 + b"\n"), CUT),
        (member("b.jpg", b"x", kind=b"S"), "is stored with holes (tar --sparse)"),
        (member("b.jpg") + member("b.json", b"[" * 200_000), "its JSON cannot be read"),
        (member("b.jpg") + member("b.json", b"9" * 20_000), "its JSON cannot be read"),
        (member("b.jpg") + member("b.json", b'{"captions": ["\\ud800"]}'), "its caption is not UTF-8"),
        (
            member("b.jpg") + member("b.txt", bytes(2**20 + 1)),
            "its class, caption or JSON is larger than 1,048,576 bytes",
        ),
    ],
)
def test_headers_that_lie_end_their_own_shard_alone(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "0.tar").write_bytes(GOOD + content + bytes(1024))
    (tmp_path / "1.tar").write_bytes(b"<!DOCTYPE html>" * 100)
    (tmp_path / "2.tar").write_bytes(GOOD + bytes(1024))
    index, _ = open_index(str(tmp_path))
    assert index.columns["shard"].tolist() == [0, 2]
    reasons = {skip.reason for skip in index.skipped} - {NO_TAR, "has no class"}
    assert len(reasons) == 1 and reasons.pop().startswith(reason)
    assert "1.tar" in {skip.name for skip in index.skipped}


def test_scanning_many_tars_says_how_far_it_is(
    tmp_path: Path, write_tar: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for count, line in ((7, ""), (8, "8 of 8 tars")):
        write_tar(tmp_path / f"{count}.tar", labelled(2))
        for number in range(count - 1):
            write_tar(tmp_path / f"0{number}.tar", labelled(2))
        assert len(opened(tmp_path)) == 2 * count
        err = capsys.readouterr().err
        assert line in err and bool(err) == bool(line)
        (tmp_path / f"{count}.tar").unlink()


def test_members_of_gigabytes_are_named_and_never_read(tmp_path: Path) -> None:
    with open(tmp_path / "0.tar", "wb") as file:  # with holes: it takes no room
        file.write(GOOD)
        for name in ("b.jpg", "c.json"):
            file.write(member(name, size=3 * 2**30))
            file.seek(3 * 2**30, os.SEEK_CUR)
        file.write(member("c.jpg", jpeg()) + bytes(1024))
    tracemalloc.start()
    index = scan_tar(find_files(str(tmp_path / "0.tar"), (".tar",))[0])
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()
    assert index.columns["label"].tolist() == [0]
    assert [(skip.name, skip.detail) for skip in index.skipped] == [
        ("0.tar/b", "3,221,225,472"),
        ("0.tar/c", "3,221,225,472"),
    ]


def test_tars_with_neither_classes_nor_captions(tmp_path: Path, write_tar: Any) -> None:
    write_tar(tmp_path / "a.tar", {"a.jpg": jpeg(), "b.jpg": jpeg()})
    with pytest.raises(ValueError, match=r"neither a class \(key.cls\) nor a caption"):
        opened(tmp_path)


def test_an_index_that_is_older_than_its_tar_is_refused(tmp_path: Path, write_tar: Any) -> None:
    tar, index = tmp_path / "a.tar", tmp_path / "index"
    write_tar(tar, labelled())
    join_indices([scan_tar(find_files(str(tar), (".tar",))[0])]).save(index, {"classes": ["a", "b", "c"]})
    source = opened(index)
    assert len(source) == 6 and source.classes == ("a", "b", "c")
    np.testing.assert_array_equal(source[3]["image"], opened(tar)[3]["image"])
    os.utime(tar, (1, 1))
    with pytest.raises(ValueError, match="index .* is older than .*a.tar .*; make it anew with `fae prepare`"):
        opened(index)
    tar.unlink()
    with pytest.raises(FileNotFoundError, match=r"a\.tar, which index .* is of, does not exist"):
        opened(index)


def test_an_index_means_the_same_wherever_one_stands(
    tmp_path: Path, write_tar: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shards").mkdir()
    write_tar(tmp_path / "shards" / "a.tar", labelled())
    monkeypatch.chdir(tmp_path)
    source = opened(Path("shards/*.tar"))
    source.index.save(Path("index"), {"classes": source.classes})
    monkeypatch.chdir("/")
    assert opened(tmp_path / "index").fingerprint == source.fingerprint
    bucket = fsspec.filesystem("memory")
    bucket.put(str(tmp_path / "index"), "/indices/a", recursive=True)  # of shards on this machine
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    try:
        assert open_source("tar", path="memory://indices/a", split="train", holdout=0.0, seed=0)[3]["label"] == 0
    finally:
        bucket.rm("/indices", recursive=True)


def test_an_index_that_is_cut_or_changed_anywhere_is_refused(tmp_path: Path, write_tar: Any) -> None:
    write_tar(tmp_path / "a.tar", labelled())
    index = tmp_path / "index"
    source = opened(tmp_path)
    source.index.save(index, {"classes": source.classes})
    rng = np.random.default_rng(0)
    for file in sorted(index.iterdir()):
        whole = file.read_bytes()
        for damaged in (b"", whole[:40], whole[:-1], *(flipped(whole, rng) for _ in range(8))):
            file.write_bytes(damaged)
            try:
                assert opened(index).fingerprint == source.fingerprint  # white space
            except ValueError as error:
                assert "cannot be read" in str(error) and "make it anew with `fae prepare`" in str(error)
            else:
                assert file.suffix == ".json" or np.array_equal(np.load(file), source.index.columns[file.stem])
        file.write_bytes(whole)


def test_broken_images_inside_are_named_by_place(tmp_path: Path, write_tar: Any) -> None:
    members = labelled(3) | {"003.jpg": jpeg()[:200], "003.cls": b"1", "004.jpg": b"<html>", "004.cls": b"1"}
    write_tar(tmp_path / "a.tar", members)
    source = opened(tmp_path)
    with pytest.raises(BadImage, match=r"a\.tar, image at byte \d+: (?i:.*truncated)"):
        source[3]
    with pytest.raises(BadImage, match="holds a web page"):
        source[4]


def test_captions_split_by_share(tmp_path: Path, write_tar: Any) -> None:
    write_tar(tmp_path / "a.tar", captioned(50))
    train, held = (opened(tmp_path, split=split, holdout=0.1) for split in ("train", "heldout"))
    assert len(held) == 5 and len(train) == 45
    assert not set(train.keys.tolist()) & set(held.keys.tolist())
